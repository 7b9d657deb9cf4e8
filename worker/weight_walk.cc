#include "worker/weight_walk.h"

#include <utility>
#include <variant>

namespace troupe {
namespace {

struct Place {
  int64_t row = 0;
  int64_t col = 0;
};

Place PlaceOf(const MatrixView& part, const MatrixView& whole) {
  const auto* plain = std::get_if<PlainStorage>(&part.storage);
  if (plain == nullptr) return {part.first_row - whole.first_row, part.first_col - whole.first_col};
  const int64_t distance = plain->offset - std::get<PlainStorage>(whole.storage).offset;
  if (whole.rows == 1) return {0, distance / plain->col_stride};
  if (plain->row_stride > plain->col_stride) {
    return {distance / plain->row_stride, distance % plain->row_stride / plain->col_stride};
  }
  return {distance % plain->col_stride / plain->row_stride, distance / plain->col_stride};
}

// A tensor of any shape as a matrix, which keeps the last axis.
MatrixView AsMatrix(const TensorView& tensor) {
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  return {.rows = tensor.elements() / cols,
          .cols = cols,
          .storage = PlainStorage{.tensor = tensor, .row_stride = cols}};
}

// Pairs what a rank holds with the whole that it is of, tensor by tensor, in one order.
class Walk {
 public:
  explicit Walk(const RankShard& shard) : shard_(shard) {}

  void Model(const ModelWeights& part, const ModelWeights& whole) {
    if (shard_.first_stage) {
      Begin(WeightRole::kEmbedding, Slice());
      Tensor(part.embedding, whole.embedding);
    }
    if (shard_.last_stage) {
      Begin(WeightRole::kHead, shard_.tensor);
      Linear(part.lm_head, whole.lm_head);
      Begin(WeightRole::kFinalNorms, Slice());
      Tensor(part.final_norm, whole.final_norm);
      for (size_t i = 0; i < whole.early_exit_norms.size(); ++i) {
        Tensor(part.early_exit_norms[i], whole.early_exit_norms[i]);
      }
    }
    for (int i = shard_.first_layer; i < shard_.end_layer; ++i) {
      Layer(i, part.layers[i], whole.layers[i]);
    }
  }

  std::vector<WeightPatch> patches;

 private:
  void Begin(WeightRole role, const Slice& slice, int layer = -1, int expert = -1) {
    part_ = {.role = role, .layer = layer, .expert = expert, .slice = slice};
    tensor_ = 0;
  }

  void Add(const MatrixView& view, Place place, const WeightExtent& extent) {
    patches.push_back({part_, extent, tensor_, view, place.row, place.col});
  }

  static WeightExtent ExtentOfPart(const MatrixView& part, const MatrixView& whole) {
    const Place place = PlaceOf(part, whole);
    return part.rows < whole.rows ? ExtentOf(place.row, part.rows, whole.rows)
                                  : ExtentOf(place.col, part.cols, whole.cols);
  }

  void Tensor(const TensorView& part, const TensorView& whole) {
    ++tensor_;
    if (part.empty()) return;
    // Only vectors are cut; a part of one begins where its bytes do.
    const int64_t bits = (part.bytes.data() - whole.bytes.data()) * 8;
    const int64_t first = bits / BitsPerElement(part.dtype);
    Add(AsMatrix(part), {0, first}, ExtentOf(first, part.elements(), whole.elements()));
  }

  void Linear(const LinearWeights& part, const LinearWeights& whole) {
    tensor_ += 2;
    if (part.weight.empty()) return;
    const WeightExtent extent = ExtentOfPart(part.weight, whole.weight);
    Add(part.weight, PlaceOf(part.weight, whole.weight), extent);
    if (part.bias.empty()) return;
    --tensor_;
    // Of a product whose inputs are split one rank has the bias, and counts it with its share.
    const bool by_inputs = part.weight.cols < whole.weight.cols;
    Add(part.bias, PlaceOf(part.bias, whole.bias),
        by_inputs ? extent : ExtentOfPart(part.bias, whole.bias));
    ++tensor_;
  }

  void Swiglu(const SwigluWeights& part, const SwigluWeights& whole) {
    Linear(part.gate_proj, whole.gate_proj);
    Linear(part.up_proj, whole.up_proj);
    Linear(part.down_proj, whole.down_proj);
  }

  void Norms(const SublayerNorms& part, const SublayerNorms& whole) {
    Tensor(part.before, whole.before);
    Tensor(part.after, whole.after);
  }

  void Kv(const KvWeights& part, const KvWeights& whole) {
    Linear(part.k_proj, whole.k_proj);
    Linear(part.v_proj, whole.v_proj);
    Tensor(part.k_norm, whole.k_norm);
  }

  void Compressor(const CompressorWeights& part, const CompressorWeights& whole) {
    Tensor(part.position, whole.position);
    Linear(part.w1, whole.w1);
    Linear(part.w2, whole.w2);
  }

  void State(const NsaWeights& part, const NsaWeights& whole) {
    Kv(part.compressed, whole.compressed);
    Kv(part.selected, whole.selected);
    Kv(part.window, whole.window);
    Linear(part.branch_gate, whole.branch_gate);
    Compressor(part.phi_k, whole.phi_k);
    Compressor(part.phi_v, whole.phi_v);
  }
  void State(const KvWeights& part, const KvWeights& whole) { Kv(part, whole); }
  void State(const MlaWeights& part, const MlaWeights& whole) {
    Linear(part.q_a_proj, whole.q_a_proj);
    Tensor(part.q_a_norm, whole.q_a_norm);
    Linear(part.kv_a_proj, whole.kv_a_proj);
    Tensor(part.kv_a_norm, whole.kv_a_norm);
    Linear(part.kv_b_proj, whole.kv_b_proj);
  }

  void Layer(int index, const LayerWeights& part, const LayerWeights& whole) {
    Begin(WeightRole::kAttention, shard_.tensor, index);
    Norms(part.attention_norms, whole.attention_norms);
    const AttentionWeights& attention = part.attention;
    Linear(attention.q_proj, whole.attention.q_proj);
    Linear(attention.o_proj, whole.attention.o_proj);
    Tensor(attention.q_norm, whole.attention.q_norm);
    Tensor(attention.sinks, whole.attention.sinks);
    std::visit(
        [&](const auto& kv) {
          State(kv, std::get<std::decay_t<decltype(kv)>>(whole.attention.kv));
        },
        attention.kv);
    if (attention.head_gate.has_value()) {
      Linear(attention.head_gate->down_proj, whole.attention.head_gate->down_proj);
      Linear(attention.head_gate->up_proj, whole.attention.head_gate->up_proj);
    }
    const auto* moe = std::get_if<MoeWeights>(&part.ffn);
    if (moe == nullptr) {
      Begin(WeightRole::kDenseFfn, shard_.tensor, index);
    } else {
      Begin(WeightRole::kRouter, Slice(), index);
    }
    Norms(part.ffn_norms, whole.ffn_norms);
    if (moe == nullptr) {
      Swiglu(std::get<SwigluWeights>(part.ffn), std::get<SwigluWeights>(whole.ffn));
    } else {
      Moe(index, *moe, std::get<MoeWeights>(whole.ffn));
    }
  }

  void Moe(int index, const MoeWeights& part, const MoeWeights& whole) {
    Linear(part.router, whole.router);
    Tensor(part.correction_bias, whole.correction_bias);
    if (part.shared.has_value()) {
      Begin(WeightRole::kShared, shard_.tensor, index);
      Swiglu(*part.shared, *whole.shared);
    }
    for (const int expert : shard_.experts[index]) {
      Begin(WeightRole::kExpert, shard_.expert, index, expert);
      Swiglu(part.experts[expert], whole.experts[expert]);
    }
  }

  const RankShard& shard_;
  WeightPart part_;
  int tensor_ = 0;  // of the part, counted whether it is there or not
};

}  // namespace

std::vector<WeightPatch> WalkWeights(const RankShard& shard, const ModelWeights& part,
                                     const ModelWeights& whole) {
  Walk walk(shard);
  walk.Model(part, whole);
  return std::move(walk.patches);
}

}  // namespace troupe
