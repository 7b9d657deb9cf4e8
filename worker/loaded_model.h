// A checkpoint's weights as kernels want them: on the device, packed, products that share their
// input fused into one matrix. All of them, or what one rank of several holds of them.
//
// Thread model: immutable once loaded.
// Ownership: shares all device memory it names with models that were loaded beside it of the same
// weights, for the same device (LoadOptions::keep). Nothing borrows from the Checkpoint after
// LoadModel returns.
#ifndef TROUPE_WORKER_LOADED_MODEL_H_
#define TROUPE_WORKER_LOADED_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/weight_quantizer.h"
#include "sharding/rank_shard.h"
#include "sharding/weight_ledger.h"
#include "sharding/weight_parts.h"

namespace troupe {

// kF32: products in f32, f32 keys and values. kBf16: inputs of products rounded to bf16, bf16 keys
// and values; the residual stream, norms, softmaxes, sigmoids and the whole router stay in f32.
enum class ComputeMode : uint8_t { kF32, kBf16 };

constexpr DType KvDType(ComputeMode mode) {
  return mode == ComputeMode::kF32 ? DType::kF32 : DType::kBf16;
}

using SharedMatrix = std::shared_ptr<const PackedMatrix>;

// Dense values on the device, [rows, cols].
struct DeviceTensor {
  Buffer memory;
  Tensor view;

  bool empty() const { return memory == nullptr; }
  const float* f32() const { return view.f32(); }
  // Null where empty, as kernels take what is optional.
  const float* data() const { return empty() ? nullptr : f32(); }
};

// One K/V pair inside LoadedAttention::in, columns counted in its output.
struct LoadedKv {
  KvBranch branch = KvBranch::kSelf;
  int64_t k_column = 0;
  int64_t v_column = 0;
  DeviceTensor k_norm;  // [D] or, over all heads, [G * D] f32; empty: none
};

// NSA's pairs in LoadedAttention::kv, and its branches in the order of their gates: compressed,
// selected, window.
inline constexpr int kNsaRawIndex = 0;
inline constexpr int kNsaSelectedIndex = 1;
inline constexpr int kNsaWindowIndex = 2;
inline constexpr int kNsaBranches = 3;

struct LoadedPhi {
  DeviceTensor position;  // [compress_block, D] f32
  DeviceTensor w1;        // [D, D] f32
  DeviceTensor w2;        // [D, D] f32

  NsaPhi view() const { return {position.f32(), w1.f32(), w2.f32()}; }
};

struct LoadedNsa {
  NsaSizes sizes;
  int64_t branch_gate_column = 0;
  LoadedPhi phi_k;
  LoadedPhi phi_v;
  DeviceTensor compressed_k_norm;  // [D] f32
};

// Multi-head latent attention. LoadedAttention::in gives queries, or their latents, then what is
// kept of a token.
struct LoadedMla {
  MlaDims dims;
  SharedMatrix q_up;           // [H * D, query latent]; null: `in` gives queries
  DeviceTensor q_latent_norm;  // [query latent] f32
  int64_t latent_column = 0;   // in LoadedAttention::in: the latent, the rotated key part
  DeviceTensor latent_norm;    // [L] f32
  std::vector<SharedMatrix> owned;
  std::vector<MlaHeadWeights> heads;  // [H], into `owned`
};

struct LoadedAttention {
  // Everything that reads the layer's normalised input: q, each K/V pair, branch gates, the inner
  // part of the head gates, latents. [in->outputs(), d]
  SharedMatrix in;
  // [all ranks' H, head gate inner]: the rule may weigh all heads; null: heads are not gated.
  SharedMatrix head_gate_up;
  int first_gate = 0;     // of those, this rank's first head
  SharedMatrix out;       // [d, H * Dv]
  DeviceTensor in_bias;   // [in->outputs()] f32; empty: none
  DeviceTensor out_bias;  // [d] f32; empty: none
  int64_t head_gate_column = 0;
  DeviceTensor q_norm;             // [D] or, over all heads, [H * D] f32; empty without QK-norm
  DeviceTensor sinks;              // [H] f32; empty without
  DeviceTensor inverse_frequency;  // [rotated dims / 2] f32; empty without RoPE
  std::vector<LoadedKv> kv;        // one, or NSA's compressed, selected and window
  std::optional<LoadedNsa> nsa;
  std::optional<LoadedMla> mla;  // whose `kv` says where latents are kept
};

struct LoadedSwiglu {
  SharedMatrix gate_up;       // [2 * inner, d]
  SharedMatrix down;          // [d, inner]
  DeviceTensor gate_up_bias;  // [2 * inner] f32; empty: none
  DeviceTensor down_bias;     // [d] f32; empty: none

  ExpertWeights view() const {
    return {gate_up.get(), down.get(), gate_up_bias.data(), down_bias.data()};
  }
};

struct LoadedMoe {
  int index = 0;                           // among the model's MoE layers, the MTP module's last
  SharedMatrix router;                     // [E, d], products in f32 in every mode
  DeviceTensor router_bias;                // [E] f32; empty: none
  DeviceTensor correction_bias;            // [E] f32; empty: none
  std::vector<LoadedSwiglu> owned;         // experts, then the shared one if there is one
  std::vector<ExpertWeights> experts;      // those that are here, ascending, into `owned`
  std::shared_ptr<const ExpertList> list;  // of `experts`
  // Where ranks hold experts whole: copies of expert e are [begin[e], begin[e + 1]), and `local`
  // says which of `experts` each is, or -1 (kernels/moe_assign/moe_assign.h). Null: all are here.
  Buffer copies_begin;
  Buffer copies_local;
  std::optional<ExpertWeights> shared;            // into `owned`
  std::shared_ptr<const ExpertList> shared_list;  // of `shared` alone; null: none
};

// Norms of a sublayer's input and of its result; empty where there is none.
struct LoadedNorms {
  DeviceTensor before;  // [d] f32
  DeviceTensor after;   // [d] f32
};

struct LoadedLayer {
  int index = 0;                 // as state streams name it
  LayerDescription description;  // of what is here
  LoadedNorms attention_norms;
  LoadedNorms ffn_norms;
  LoadedAttention attention;
  std::variant<LoadedSwiglu, LoadedMoe> ffn;
};

struct LoadedMtp {
  DeviceTensor embedding_norm;  // [d] f32
  DeviceTensor hidden_norm;     // [d] f32
  SharedMatrix input;           // [d, 2 * d]
  DeviceTensor head_norm;       // [d] f32
  LoadedLayer layer;
};

// What is on record of a part of the weights.
struct LoadedPart {
  int64_t stored_bytes = 0;  // that were read for it
  int64_t device_bytes = 0;
  std::vector<WeightPiece> pieces;  // as PartReader says; empty without one
};

struct LoadedModel {
  ModelDescription description;  // the rank's, see RankShard
  RankShard shard;
  ComputeMode mode = ComputeMode::kF32;
  DeviceTensor embedding;   // [V, d] as stored: f32 or bf16; empty: other stages'
  SharedMatrix lm_head;     // [V, d], or the rank's part of V; null: other stages'
  DeviceTensor final_norm;  // [d] f32
  std::vector<LoadedLayer> layers;
  std::vector<DeviceTensor> early_exit_norms;  // [d] f32, parallel to early_exit_layers
  std::optional<LoadedMtp> mtp;
  std::map<WeightPart, LoadedPart> parts;  // PartsOf(shard), the MTP module's left out
  int64_t weight_bytes = 0;                // device memory of all of the above
  int64_t kept_bytes = 0;                  // of which LoadOptions::keep had already

  int moe_layers() const;   // of all stages; the MTP module's layer left out
  int max_experts() const;  // of any layer, the MTP module's included
  int gated_heads() const;  // (layer, head) pairs with a gate, for skip rates
};

// Looks at each part of the weights before LoadModel reads it.
class PartReader {
 public:
  virtual ~PartReader() = default;

  // Sees to it that the part's bytes are where the checkpoint's views look, and tells what they
  // are. Not OK: LoadModel ends with that.
  virtual absl::StatusOr<std::vector<WeightPiece>> Begin(const WeightPart& part) = 0;
  // LoadModel has read them.
  virtual void End(const WeightPart& part) = 0;
};

struct LoadOptions {
  ComputeMode mode = ComputeMode::kBf16;
  // Weights that the checkpoint stores as plain values become integers; those that are integers
  // keep their format, and get the format's activations where the checkpoint wants none of its own.
  // The head gets 8 bits at least and keeps its activations; embeddings, routers, norms and biases
  // stay as they are.
  std::optional<IntegerFormat> quantize;
  int threads = 1;        // that quantise
  bool with_mtp = false;  // load the MTP module when the model has one
  // What to load of the model; null: all of it.
  const RankShard* shard = nullptr;
  // Of the same checkpoint, loaded with the same options for the same device: what it holds is
  // shared instead of read. Null: nothing.
  const LoadedModel* keep = nullptr;
  PartReader* reader = nullptr;  // null: nobody looks; not asked of the MTP module
  // Told, for each packed matrix whose weights --quantize would turn to the format it was given, of
  // which weights it was made; may be null.
  std::function<void(const PackedMatrix* matrix, const std::vector<LinearWeights>& parts)> packed;
  // Called from the loading thread with bytes of tensors done and in all; may be null.
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
};

// Unimplemented, naming the tensor or layer, for a stored dtype or a combination of features that
// the runner cannot run; ResourceExhausted when device memory is short.
absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, Ops* ops,
                                      const LoadOptions& options);

}  // namespace troupe

#endif  // TROUPE_WORKER_LOADED_MODEL_H_
