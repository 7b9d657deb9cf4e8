#include "worker/loaded_model.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/element.h"

namespace troupe {
namespace {

// Builds a LoadedModel. The first error sticks and ends up in the result, so that the walk over the
// weights reads as a list of what is loaded.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, Ops* ops, const LoadOptions& options)
      : checkpoint_(checkpoint), ops_(ops), options_(options) {
    for (const auto& [name, view] : checkpoint.files().tensors()) {
      bytes_total_ += static_cast<int64_t>(view.bytes.size());
    }
  }

  absl::StatusOr<LoadedModel> Load() {
    const ModelDescription& description = checkpoint_.description();
    const ModelWeights& weights = checkpoint_.weights();
    LoadedModel model;
    model.description = description;
    model.mode = options_.mode;
    model.embedding = Table(weights.embedding);
    model.lm_head = Matrix({weights.lm_head}, product());
    model.final_norm = Floats(weights.final_norm);
    for (size_t i = 0; i < description.layers.size(); ++i) {
      model.layers.push_back(Layer(static_cast<int>(i), description.layers[i], weights.layers[i]));
    }
    for (const TensorView& norm : weights.early_exit_norms) {
      model.early_exit_norms.push_back(Floats(norm));
    }
    if (options_.with_mtp && description.mtp.has_value()) {
      const MtpWeights& mtp = *weights.mtp;
      model.mtp.emplace();
      model.mtp->embedding_norm = Floats(mtp.embedding_norm);
      model.mtp->hidden_norm = Floats(mtp.hidden_norm);
      model.mtp->input = Matrix({mtp.input_proj}, product());
      model.mtp->head_norm = Floats(mtp.head_norm);
      model.mtp->layer = Layer(description.mtp_layer_index(), description.mtp->layer, mtp.layer);
    }
    model.weight_bytes = weight_bytes_;
    if (!status_.ok()) return status_;
    return model;
  }

 private:
  Precision product() const {
    return options_.mode == ComputeMode::kF32 ? Precision::kF32 : Precision::kBf16;
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  void Report(int64_t bytes) {
    bytes_done_ += bytes;
    if (options_.progress && status_.ok()) options_.progress(bytes_done_, bytes_total_);
  }

  DeviceTensor ToDevice(const void* data, DType dtype, int64_t rows, int64_t cols) {
    const int64_t bytes = rows * cols * BytesOf(dtype);
    DeviceTensor tensor;
    auto memory = ops_->Allocate(bytes);
    if (!memory.ok()) {
      Fail(memory.status());
      return tensor;
    }
    std::memcpy(memory->get(), data, bytes);
    tensor.memory = *std::move(memory);
    tensor.view = {tensor.memory.get(), dtype, rows, cols, cols};
    weight_bytes_ += bytes;
    return tensor;
  }

  DeviceTensor ToDevice(const std::vector<float>& values, int64_t cols) {
    return ToDevice(values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols);
  }

  // A vector or small matrix in f32; empty when the model has none.
  DeviceTensor Floats(const TensorView& view) {
    if (view.empty()) return {};
    const std::vector<float> values = ReadAsF32(view);
    Report(static_cast<int64_t>(view.bytes.size()));
    return ToDevice(values, view.shape.back());
  }

  // A matrix in f32 and row-major, for the few that kernels take so.
  DeviceTensor Small(const LinearWeights& weights) {
    std::vector<float> values(weights.weight.elements());
    weights.weight.ReadRows(0, weights.weight.rows, absl::MakeSpan(values));
    Report(weights.weight.stored_bytes());
    return ToDevice(values, weights.weight.cols);
  }

  // As stored where kernels take that, else in f32.
  DeviceTensor Table(const TensorView& view) {
    Report(static_cast<int64_t>(view.bytes.size()));
    if (view.dtype == StoredDType::kBF16) {
      return ToDevice(view.bytes.data(), DType::kBf16, view.shape[0], view.shape[1]);
    }
    return ToDevice(ReadAsF32(view), view.shape[1]);
  }

  // All parts under one another, as stored where they agree and kernels take it so, else in f32.
  std::unique_ptr<PackedMatrix> Matrix(const std::vector<LinearWeights>& parts,
                                       Precision precision) {
    const StoredDType stored = parts[0].weight.value_dtype();
    bool as_stored = stored == StoredDType::kF32 || stored == StoredDType::kBF16;
    for (const LinearWeights& part : parts) {
      as_stored =
          as_stored && part.weight.value_dtype() == stored && part.weight.Contiguous() != nullptr;
    }
    std::deque<std::vector<float>> decoded;
    std::vector<Tensor> tensors;
    for (const LinearWeights& part : parts) {
      Tensor tensor;
      tensor.rows = part.out_features;
      tensor.cols = tensor.stride = part.in_features;
      if (as_stored) {
        tensor.dtype = stored == StoredDType::kF32 ? DType::kF32 : DType::kBf16;
        tensor.data = const_cast<std::byte*>(part.weight.Contiguous());
      } else {
        std::vector<float>& values = decoded.emplace_back(part.weight.elements());
        part.weight.ReadRows(0, part.weight.rows, absl::MakeSpan(values));
        tensor.data = values.data();
      }
      tensors.push_back(tensor);
      Report(part.weight.stored_bytes());
    }
    std::unique_ptr<PackedMatrix> packed = ops_->Pack(tensors, precision);
    weight_bytes_ += packed->bytes();
    return packed;
  }

  LoadedSwiglu Swiglu(const SwigluWeights& weights) {
    LoadedSwiglu ffn;
    ffn.gate_up = Matrix({weights.gate_proj, weights.up_proj}, product());
    ffn.down = Matrix({weights.down_proj}, product());
    return ffn;
  }

  LoadedMoe Moe(const MoeFfn& description, const MoeWeights& weights) {
    LoadedMoe moe;
    moe.index = moe_layers_++;
    moe.router = Matrix({weights.router}, Precision::kF32);
    moe.correction_bias =
        weights.correction_bias.empty()
            ? ToDevice(std::vector<float>(description.experts, 0.0F), description.experts)
            : Floats(weights.correction_bias);
    for (const SwigluWeights& expert : weights.experts) {
      moe.owned.push_back(Swiglu(expert));
      moe.experts.push_back(moe.owned.back().view());
    }
    if (weights.shared.has_value()) {
      moe.owned.push_back(Swiglu(*weights.shared));
      moe.shared = moe.owned.back().view();
    }
    return moe;
  }

  LoadedPhi Phi(const CompressorWeights& weights) {
    return {Floats(weights.position), Small(weights.w1), Small(weights.w2)};
  }

  LoadedNsa Nsa(const NsaDescription& description, const NsaWeights& weights) {
    LoadedNsa nsa;
    nsa.sizes.compress_block = description.compress_block;
    nsa.sizes.compress_stride = description.compress_stride;
    nsa.sizes.selected_blocks = description.selected_blocks;
    nsa.sizes.initial_blocks = description.init_blocks;
    nsa.sizes.local_blocks = description.local_blocks;
    nsa.phi_k = Phi(weights.phi_k);
    nsa.phi_v = Phi(weights.phi_v);
    nsa.compressed_k_norm = Floats(weights.compressed.k_norm);
    return nsa;
  }

  DeviceTensor InverseFrequency(const RopeDescription& rope) {
    if (rope.kind == RopeKind::kNone) return {};
    return ToDevice(rope.inverse_frequency, static_cast<int64_t>(rope.inverse_frequency.size()));
  }

  LoadedAttention Attention(const AttentionDescription& description,
                            const AttentionWeights& weights) {
    LoadedAttention attention;
    std::vector<LinearWeights> parts = {weights.q_proj};
    int64_t column = weights.q_proj.out_features;
    const auto append = [&](const LinearWeights& part) {
      parts.push_back(part);
      return std::exchange(column, column + part.out_features);
    };
    const auto append_kv = [&](const KvWeights& kv, KvBranch branch) {
      LoadedKv loaded;
      loaded.branch = branch;
      loaded.k_column = append(kv.k_proj);
      loaded.v_column = append(kv.v_proj);
      if (branch != KvBranch::kNsaRaw) loaded.k_norm = Floats(kv.k_norm);
      attention.kv.push_back(std::move(loaded));
    };
    const auto* nsa = std::get_if<NsaWeights>(&weights.kv);
    if (nsa == nullptr) {
      append_kv(std::get<KvWeights>(weights.kv), KvBranch::kSelf);
    } else {
      append_kv(nsa->compressed, KvBranch::kNsaRaw);
      append_kv(nsa->selected, KvBranch::kNsaSelected);
      append_kv(nsa->window, KvBranch::kNsaWindow);
      attention.nsa = Nsa(*description.nsa, *nsa);
    }
    if (weights.head_gate.has_value()) {
      attention.head_gate_column = append(weights.head_gate->down_proj);
      attention.head_gate_up = Matrix({weights.head_gate->up_proj}, product());
    }
    if (nsa != nullptr) attention.nsa->branch_gate_column = append(nsa->branch_gate);
    attention.in = Matrix(parts, product());
    attention.out = Matrix({weights.o_proj}, product());
    attention.q_norm = Floats(weights.q_norm);
    attention.inverse_frequency = InverseFrequency(description.rope);
    return attention;
  }

  LoadedLayer Layer(int index, const LayerDescription& description, const LayerWeights& weights) {
    const AttentionDescription& attention = description.attention;
    if (attention.kind == AttentionKind::kNsa &&
        (!attention.head_gate.has_value() || attention.rope.kind != RopeKind::kNone)) {
      Fail(absl::UnimplementedError(absl::StrCat(
          "layer ", index, ": sparse attention runs with head gates and without RoPE only")));
    }
    LoadedLayer layer;
    layer.description = description;
    layer.attention_norm = Floats(weights.attention_norms.before);
    layer.ffn_norm = Floats(weights.ffn_norms.before);
    layer.attention = Attention(attention, weights.attention);
    if (const auto* moe = std::get_if<MoeWeights>(&weights.ffn)) {
      layer.ffn = Moe(std::get<MoeFfn>(description.ffn), *moe);
    } else {
      layer.ffn = Swiglu(std::get<SwigluWeights>(weights.ffn));
    }
    return layer;
  }

  const Checkpoint& checkpoint_;
  Ops* ops_;
  const LoadOptions& options_;
  absl::Status status_;
  int64_t bytes_done_ = 0;
  int64_t bytes_total_ = 0;
  int64_t weight_bytes_ = 0;
  int moe_layers_ = 0;
};

}  // namespace

int LoadedModel::moe_layers() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const LoadedLayer& layer) {
    return std::holds_alternative<LoadedMoe>(layer.ffn);
  }));
}

int LoadedModel::max_experts() const {
  int experts = 0;
  const auto count = [&](const LoadedLayer& layer) {
    if (const auto* moe = std::get_if<LoadedMoe>(&layer.ffn)) {
      experts = std::max(experts, static_cast<int>(moe->experts.size()));
    }
  };
  for (const LoadedLayer& layer : layers) count(layer);
  if (mtp.has_value()) count(mtp->layer);
  return experts;
}

int LoadedModel::gated_heads() const {
  int heads = 0;
  for (const LoadedLayer& layer : layers) {
    if (layer.attention.head_gate_up != nullptr) heads += layer.description.attention.heads;
  }
  return heads;
}

absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, Ops* ops,
                                      const LoadOptions& options) {
  return Loader(checkpoint, ops, options).Load();
}

}  // namespace troupe
