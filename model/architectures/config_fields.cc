#include "model/architectures/config_fields.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/rope_scaling.h"

namespace troupe {
namespace {

constexpr int64_t kMaxContextTokens = int64_t{1} << 30;
constexpr double kMaxTheta = 1e12;

std::optional<uint32_t> TokenField(JsonFields& config, absl::string_view key) {
  if (!config.Has(key)) {
    config.Ignore({key});
    return std::nullopt;
  }
  return static_cast<uint32_t>(config.Int(key, 0, std::numeric_limits<uint32_t>::max()));
}

}  // namespace

int SizeField(JsonFields& config, absl::string_view key, int64_t max) {
  return static_cast<int>(config.Int(key, 1, max));
}

ModelDescription ReadCommonFields(JsonFields& config) {
  ModelDescription model;
  model.vocab_size = SizeField(config, "vocab_size", int64_t{1} << 24);
  model.hidden_size = SizeField(config, "hidden_size");
  config.Only("hidden_act", "silu");
  model.rms_epsilon = static_cast<float>(config.Number("rms_norm_eps", 1e-12, 1.0));
  model.tied_embeddings = config.BoolOr("tie_word_embeddings", false);
  model.max_context_tokens = SizeField(config, "max_position_embeddings", kMaxContextTokens);
  model.bos_token = TokenField(config, "bos_token_id");
  model.pad_token = TokenField(config, "pad_token_id");
  for (int64_t token : config.IntOrList("eos_token_id", 0, model.vocab_size - 1)) {
    model.end_tokens.push_back(static_cast<uint32_t>(token));
  }
  return model;
}

void ReadHeads(JsonFields& config, int hidden_size, AttentionDescription& attention) {
  attention.heads = SizeField(config, "num_attention_heads");
  attention.kv_heads =
      static_cast<int>(config.IntOr("num_key_value_heads", 1, kMaxSize, attention.heads));
  if (config.Has("head_dim")) {
    attention.head_dim = SizeField(config, "head_dim");
  } else if (hidden_size % attention.heads == 0) {
    attention.head_dim = hidden_size / attention.heads;
  } else {
    config.Fail("head_dim", "nothing",
                absl::StrCat("a size: ", attention.heads,
                             " heads do not divide hidden_size = ", hidden_size));
  }
  attention.value_dim = attention.head_dim;
  attention.score_scale = 1.0F / std::sqrt(static_cast<float>(attention.head_dim));
}

RopeDescription ReadRope(JsonFields& config, int head_dim) {
  double theta = 0;
  config.Only("rope_scaling", nullptr);
  if (const nlohmann::json* object = config.Object("rope_parameters")) {
    JsonFields fields(config.file(), config.FieldName("rope_parameters"), *object);
    fields.Only("rope_type", "default");
    theta = fields.Number("rope_theta", 1.0, kMaxTheta);
    config.Nested(fields);
  } else {
    theta = config.Number("rope_theta", 1.0, kMaxTheta);
  }
  return {.kind = RopeKind::kHalfSplit,
          .rotated_dims = head_dim,
          .inverse_frequency = RopeFrequencies(theta, head_dim)};
}

}  // namespace troupe
