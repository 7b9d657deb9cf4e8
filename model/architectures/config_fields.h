// Config fields that families share, in the spellings of transformers 4 and 5. A mapping file is
// put together from these readers; each of them marks every key it knows as read.
//
// Thread model: pure functions of the config. Errors stay in the JsonFields (see there).
#ifndef TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_
#define TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_

#include <functional>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/description.h"
#include "model/json_reader.h"
#include "model/rope_scaling.h"

namespace troupe {

// Larger sizes are taken for mistakes; products of three of them still fit in 64 bits.
inline constexpr int64_t kMaxSize = 1 << 20;
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeadDim = 4096;
inline constexpr int64_t kMaxExperts = 8192;

// A required size from 1 to `max`.
int SizeField(JsonFields& config, absl::string_view key, int64_t max = kMaxSize);

// num_hidden_layers.
int ReadLayerCount(JsonFields& config);

// Vocabulary, hidden size, epsilon, context, special tokens, and tying, which
// `tied_where_silent` says for configs that leave it out.
ModelDescription ReadCommonFields(JsonFields& config, bool tied_where_silent = false);

// num_attention_heads, num_key_value_heads (where absent: as many) and head_dim, which is
// value_dim too; scores are scaled by head_dim^-0.5. Where head_dim is absent it is
// `head_dim_where_silent`, or with 0 hidden_size / heads.
AttentionDescription ReadHeads(JsonFields& config, int hidden_size, int head_dim_where_silent = 0);

// attention_bias: all four projections of attention add one, or none does.
void ReadAttentionBias(JsonFields& config, AttentionDescription& attention,
                       bool where_silent = false);

// hidden_act, or the family's other name for it: SiLU or the tanh form of GELU.
Activation ReadActivation(JsonFields& config, absl::string_view key = "hidden_act");

// intermediate_size and hidden_act.
DenseFfn ReadDenseFfn(JsonFields& config);

// --- Experts ----------------------------------------------------------------------------------

// A size under either of two names; where both stand they agree.
int AliasedSizeField(JsonFields& config, absl::string_view key, absl::string_view alias,
                     int64_t max = kMaxSize);

int AliasedSizeFieldOr(JsonFields& config, absl::string_view key, absl::string_view alias,
                       int otherwise, int64_t max = kMaxSize);

// Experts of the size that `inner_size_key` names, num_experts_per_tok of them for a token, with
// hidden_act.
MoeFfn ReadExperts(JsonFields& config, int experts, absl::string_view inner_size_key);

// DeepSeek's words: n_routed_experts, n_shared_experts and moe_intermediate_size, groups scored as
// `group_score` says, norm_topk_prob and routed_scaling_factor.
MoeFfn ReadGroupedExperts(JsonFields& config, GroupScore group_score);

// Grouped experts scored by sigmoids, with a correction bias for choosing (DeepSeek-V3, noaux_tc).
MoeFfn ReadCorrectedExperts(JsonFields& config);

// Adds num_hidden_layers layers to `model`: the first first_k_dense_replace of them with `dense`,
// the rest with `moe`, and for num_nextn_predict_layers an MTP module, which is a layer like the
// last.
void ReadDenseThenExperts(JsonFields& config, const AttentionDescription& attention,
                          const DenseFfn& dense, const MoeFfn& moe, ModelDescription& model);

// --- Multi-head latent attention --------------------------------------------------------------

// q_lora_rank, kv_lora_rank, the sizes of heads, and the rope of their last part with YaRN's
// sharper scores.
AttentionDescription ReadLatentAttention(JsonFields& config, int context_tokens, RopeKind rope);

// --- Rope -------------------------------------------------------------------------------------

struct RopeDefaults {
  double theta = 10000.0;
  bool partial = false;  // the family turns only partial_rotary_factor of a head
  double rotated_part = 1.0;
};

// The one rope of a family: rope_parameters, or rope_theta, partial_rotary_factor and rope_scaling.
// `context_tokens` is the context that a scaling stretches where it does not say so itself.
RopeParameters ReadRope(JsonFields& config, int context_tokens, const RopeDefaults& defaults = {});

// The same as angles for heads whose halves are turned against each other, which most families do.
RopeDescription ReadHeadRope(JsonFields& config, const ModelDescription& model, int head_dim,
                             const RopeDefaults& defaults = {});

// The ropes of a family whose sliding layers have one of their own, never scaled in transformers
// 4's form.
struct LayerRopes {
  RopeParameters full;
  RopeParameters sliding;

  // Gives each layer of `model` its own, for heads whose halves are turned against each other.
  void Turn(ModelDescription& model) const;
};

// rope_parameters.full_attention and .sliding_attention; or rope_theta with rope_scaling for full
// layers, and for sliding ones `sliding_theta_key`, which may be rope_theta too.
LayerRopes ReadLayerRopes(JsonFields& config, int context_tokens, double theta_where_silent,
                          absl::string_view sliding_theta_key, double sliding_theta_where_silent);

// --- Layers that slide ------------------------------------------------------------------------

// layer_types; where it is absent, `slides` says which layers do. Without `slides` it is required.
std::vector<AttentionKind> ReadLayerTypes(JsonFields& config, int layers,
                                          const std::function<bool(int layer)>& slides);

struct SlidingLayers {
  std::vector<AttentionKind> kinds;  // kFull or kSliding
  int window_tokens = 0;             // of those that slide
};

// Adds a layer like `layer` to `model` for each of `sliding`, of its kind.
void AddLayers(const SlidingLayers& sliding, const LayerDescription& layer,
               ModelDescription& model);

// layer_types with sliding_window, required by layers that slide.
SlidingLayers ReadSlidingLayers(JsonFields& config, int layers,
                                const std::function<bool(int layer)>& slides);

// The same, but nothing slides unless use_sliding_window says so.
SlidingLayers ReadOptionalWindow(JsonFields& config, int layers,
                                 const std::function<bool(int layer)>& slides);

// Qwen's words: layers from max_window_layers on slide where use_sliding_window says so.
SlidingLayers ReadUpperWindow(JsonFields& config, int layers);

}  // namespace troupe

#endif  // TROUPE_MODEL_ARCHITECTURES_CONFIG_FIELDS_H_
