// A checkpoint folder, opened: description, weights checked against it, and identity.
//
// Thread model: immutable after Open; any thread may read.
// Ownership: owns the mappings. ModelWeights and its views borrow from the Checkpoint and live as
// long as it does; moving the Checkpoint keeps them valid.
// Errors: InvalidArgument for a malformed or mismatched file, NotFound for a missing one, always
// naming file, field, found and wanted.
#ifndef TROUPE_MODEL_CHECKPOINT_H_
#define TROUPE_MODEL_CHECKPOINT_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/description.h"
#include "model/dummy_weights.h"
#include "model/matrix_view.h"
#include "model/quantization.h"
#include "model/safetensors.h"

namespace troupe {

// y = W x + bias, W [out_features, in_features]. Every matrix multiplication of the model is one of
// these.
struct LinearWeights {
  MatrixView weight;
  MatrixView bias;  // [1, out_features], always plain; empty: none
  int out_features = 0;
  int in_features = 0;
};

// K and V projections with the keys' norm (empty without qk_norm).
struct KvWeights {
  LinearWeights k_proj;  // [kv_heads * head_dim, hidden]
  LinearWeights v_proj;  // [kv_heads * value_dim, hidden]
  TensorView k_norm;     // [head_dim], or [kv_heads * head_dim]
};

// NSA's phi: u = silu(w1 (z + position)), a = softmax over the block of w2 u, c = sum a * z.
struct CompressorWeights {
  TensorView position;  // [compress_block, head_dim]
  LinearWeights w1;     // [head_dim, head_dim]
  LinearWeights w2;     // [head_dim, head_dim]
};

struct NsaWeights {
  KvWeights compressed;  // its k_norm applies after compression
  KvWeights selected;
  KvWeights window;
  LinearWeights branch_gate;  // [3 * heads, hidden]; row 3h + (0 compressed, 1 selected, 2 window)
  CompressorWeights phi_k;
  CompressorWeights phi_v;
};

struct HeadGateWeights {
  LinearWeights down_proj;  // [inner, hidden]
  LinearWeights up_proj;    // [heads, inner]
};

// Multi-head latent attention's way to keys and values; see MlaDescription.
struct MlaWeights {
  LinearWeights q_a_proj;   // [query_latent_dim, hidden]; empty without query_latent_dim
  TensorView q_a_norm;      // [query_latent_dim]
  LinearWeights kv_a_proj;  // [latent_dim + rope_dim, hidden]
  TensorView kv_a_norm;     // [latent_dim]
  LinearWeights kv_b_proj;  // [heads * (nope_dim + value_dim), latent_dim], head by head
};

struct AttentionWeights {
  LinearWeights q_proj;  // [heads * head_dim, hidden], or [.., query_latent_dim] (q_b_proj)
  LinearWeights o_proj;  // [hidden, heads * value_dim]
  TensorView q_norm;     // [head_dim], or [heads * head_dim]; empty without qk_norm
  TensorView sinks;      // [heads]; empty without sinks
  // The K/V of a sliding or full layer, NSA's three branches, or the latent.
  std::variant<KvWeights, NsaWeights, MlaWeights> kv;
  std::optional<HeadGateWeights> head_gate;
};

struct SwigluWeights {
  LinearWeights gate_proj;  // [inner, hidden]
  LinearWeights up_proj;    // [inner, hidden]
  LinearWeights down_proj;  // [hidden, inner]
};

struct MoeWeights {
  LinearWeights router;        // [experts, hidden]
  TensorView correction_bias;  // [experts], empty without correction_bias
  std::vector<SwigluWeights> experts;
  std::optional<SwigluWeights> shared;
};

// Norms of a sublayer; which are there depends on LayerDescription::norm_place.
struct SublayerNorms {
  TensorView before;  // [hidden]; empty for kAfter
  TensorView after;   // [hidden]; empty for kBefore
};

struct LayerWeights {
  SublayerNorms attention_norms;
  SublayerNorms ffn_norms;
  AttentionWeights attention;
  std::variant<SwigluWeights, MoeWeights> ffn;
};

// Its embedding and head are the model's own.
struct MtpWeights {
  TensorView embedding_norm;  // [hidden]
  TensorView hidden_norm;     // [hidden]
  LinearWeights input_proj;   // [hidden, 2 * hidden], applied to concat(embedding, hidden)
  LayerWeights layer;
  TensorView head_norm;  // [hidden]
};

// Mirrors ModelDescription: every member has the shape the description implies.
struct ModelWeights {
  TensorView embedding;   // [vocab, hidden]
  LinearWeights lm_head;  // [vocab, hidden]; the embedding's bytes when tied
  TensorView final_norm;  // [hidden]
  std::vector<LayerWeights> layers;
  std::vector<TensorView> early_exit_norms;  // [hidden], parallel to early_exit_layers
  std::optional<MtpWeights> mtp;
};

struct ParameterCounts {
  int64_t total = 0;     // numbers that the model is made of, however they are stored
  int64_t active = 0;    // used for one token: chosen experts only, MTP and early exits left out
  int64_t matrices = 0;  // of total, those in matrices that quantisation at load may pack
  int64_t tensors = 0;
  std::map<StoredDType, int64_t> bytes_by_dtype;
};

// SHA-256 over config, tokenizer files and every shard's bytes, or what random weights come from.
struct ModelIdentity {
  std::array<uint8_t, 32> sha256{};

  std::string Hex() const;
  bool operator==(const ModelIdentity&) const = default;
};

// What generation_config.json asks for where a request is silent.
struct GenerationDefaults {
  bool do_sample = false;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int> max_new_tokens;
};

struct Architecture;

// What a folder's config.json and generation_config.json say, without its weights.
struct ModelConfig {
  const Architecture* architecture = nullptr;  // of static lifetime
  ModelDescription description;
  GenerationDefaults generation_defaults;
  Quantization quantization;
};
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder);

class Checkpoint {
 public:
  using Progress = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;

  // Reads the configs, maps the shards and checks every tensor's name, shape and dtype.
  static absl::StatusOr<Checkpoint> Open(const std::string& folder);
  // Reads the configs alone; the weights are random (model/dummy_weights.h).
  static absl::StatusOr<Checkpoint> OpenDummy(const std::string& folder,
                                              const DummyOptions& options);

  // Reads the configs alone; `files` are what the folder's own would be.
  static absl::StatusOr<Checkpoint> OpenOver(const std::string& folder,
                                             SafetensorsCheckpoint files);

  const std::string& folder() const { return folder_; }
  const ModelDescription& description() const { return description_; }
  const GenerationDefaults& generation_defaults() const { return generation_defaults_; }
  const ModelWeights& weights() const { return weights_; }
  const SafetensorsCheckpoint& files() const { return files_; }
  const ParameterCounts& parameters() const { return parameters_; }
  // For people, as Quantization::name().
  const std::string& quantization() const { return quantization_; }

  // Paths of text files in the folder; the tokenizer and template themselves are model/text's.
  std::string tokenizer_path() const;

  // Reads every byte of the folder's model files on `threads` threads; the result does not depend
  // on their number. `progress` may be null; it is called from those threads, one at a time. This
  // also brings the weights into the page cache.
  absl::StatusOr<ModelIdentity> ComputeIdentity(int threads,
                                                const Progress& progress = nullptr) const;

 private:
  Checkpoint() = default;
  absl::Status Bind(const ModelConfig& config, SafetensorsCheckpoint files);

  std::string folder_;
  std::string dummy_;  // what random weights come from; empty: from files
  ModelDescription description_;
  GenerationDefaults generation_defaults_;
  SafetensorsCheckpoint files_;
  ModelWeights weights_;
  ParameterCounts parameters_;
  std::string quantization_;
};

}  // namespace troupe

#endif  // TROUPE_MODEL_CHECKPOINT_H_
