// The part of config_fields.h that reads multi-head latent attention.
#include <cmath>

#include "model/architectures/config_fields.h"

namespace troupe {
namespace {

// Both published implementations leave the latents' norms at it whatever rms_norm_eps says.
constexpr float kLatentNormEpsilon = 1e-6F;

}  // namespace

AttentionDescription ReadLatentAttention(JsonFields& config, int context_tokens, RopeKind rope) {
  MlaDescription mla{
      .query_latent_dim = static_cast<int>(config.IntOr("q_lora_rank", 1, kMaxSize, 0)),
      .latent_dim = SizeField(config, "kv_lora_rank"),
      .nope_dim = SizeField(config, "qk_nope_head_dim", kMaxHeadDim),
      .rope_dim = SizeField(config, "qk_rope_head_dim", kMaxHeadDim),
      .norm_epsilon = kLatentNormEpsilon};
  AttentionDescription attention;
  attention.heads = SizeField(config, "num_attention_heads");
  attention.kv_heads = attention.heads;
  attention.head_dim = mla.nope_dim + mla.rope_dim;
  attention.value_dim = SizeField(config, "v_head_dim", kMaxHeadDim);
  config.Only("num_key_value_heads", attention.heads);
  config.Only("head_dim", mla.rope_dim);  // transformers' name for what the rope turns
  config.Only("qk_head_dim", attention.head_dim);
  config.Only("attention_bias", false);
  const RopeParameters parameters = ReadRope(config, context_tokens);
  attention.rope = DescribeRope(rope, parameters, mla.rope_dim);
  attention.score_scale =
      static_cast<float>(YarnScoreFactor(parameters) / std::sqrt(attention.head_dim));
  attention.mla = mla;
  return attention;
}

}  // namespace troupe
