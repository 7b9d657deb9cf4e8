// The part of config_fields.h that reads rope.
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/architectures/config_fields.h"

namespace troupe {
namespace {

constexpr double kMinTheta = 1.0;
constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr double kMaxTurns = 1e6;

double ScalingFactor(JsonFields& fields) { return fields.Number("factor", 1.0, kMaxFactor); }

double OriginalContext(JsonFields& fields, int context_tokens) {
  return static_cast<double>(
      fields.IntOr("original_max_position_embeddings", 1, int64_t{1} << 30, context_tokens));
}

Llama3RopeScaling ReadLlama3(JsonFields& fields, int context_tokens) {
  Llama3RopeScaling llama3{.factor = ScalingFactor(fields)};
  llama3.low_frequency_factor = fields.Number("low_freq_factor", 1e-3, kMaxTurns);
  llama3.high_frequency_factor = fields.Number("high_freq_factor", 1e-3, kMaxTurns);
  llama3.original_context_tokens = OriginalContext(fields, context_tokens);
  if (llama3.high_frequency_factor <= llama3.low_frequency_factor) {
    fields.Fail("high_freq_factor", absl::StrCat(llama3.high_frequency_factor),
                absl::StrCat("more than low_freq_factor = ", llama3.low_frequency_factor));
  }
  return llama3;
}

YarnRopeScaling ReadYarn(JsonFields& fields, int context_tokens) {
  YarnRopeScaling yarn;
  yarn.original_context_tokens = OriginalContext(fields, context_tokens);
  yarn.factor =
      fields.NumberOr("factor", 1.0, kMaxFactor, context_tokens / yarn.original_context_tokens);
  yarn.beta_fast = fields.NumberOr("beta_fast", 1e-3, kMaxTurns, yarn.beta_fast);
  yarn.beta_slow = fields.NumberOr("beta_slow", 1e-3, kMaxTurns, yarn.beta_slow);
  if (yarn.beta_fast < yarn.beta_slow) {
    fields.Fail("beta_fast", absl::StrCat(yarn.beta_fast),
                absl::StrCat("at least beta_slow = ", yarn.beta_slow));
  }
  yarn.truncate = fields.BoolOr("truncate", true);
  const double attention_factor = fields.NumberOr("attention_factor", 1e-3, 1e3, 1.0);
  if (fields.Has("attention_factor")) yarn.attention_factor = attention_factor;
  yarn.mscale = fields.NumberOr("mscale", 0.0, 1e3, 0.0);
  yarn.mscale_all_dim = fields.NumberOr("mscale_all_dim", 0.0, 1e3, 0.0);
  fields.Ignore({"finetuned"});
  return yarn;
}

// rope_type, or transformers 4's older name for it.
std::string RopeType(JsonFields& fields) {
  const std::string older = fields.StringOr("type", "default");
  const std::string type = fields.StringOr("rope_type", older);
  if (fields.Has("type") && type != older) fields.Fail("type", older, "what rope_type says");
  return type;
}

void ReadScaling(JsonFields& fields, int context_tokens, RopeParameters& rope) {
  const std::string type = RopeType(fields);
  if (type == "linear") {
    rope.scaling = LinearRopeScaling{ScalingFactor(fields)};
  } else if (type == "llama3") {
    rope.scaling = ReadLlama3(fields, context_tokens);
  } else if (type == "yarn") {
    rope.scaling = ReadYarn(fields, context_tokens);
  } else if (type != "default") {
    fields.Fail(fields.Has("rope_type") ? "rope_type" : "type", type,
                "default, linear, llama3 or yarn");
  }
}

// A number that stands beside the rope's object, in it, or in both if they agree.
double SharedNumber(JsonFields& outer, JsonFields& inner, absl::string_view key, double min,
                    double max, double otherwise) {
  const double outside = outer.NumberOr(key, min, max, otherwise);
  const double inside = inner.NumberOr(key, min, max, outside);
  if (outer.Has(key) && inside != outside) {
    inner.Fail(key, absl::StrCat(inside), absl::StrCat(outside, ", as outside of this object"));
  }
  return inside;
}

// What `object`, which `name` names in errors, says, with what stands beside it in `config`.
RopeParameters ReadRopeObject(JsonFields& config, absl::string_view name,
                              const nlohmann::json& object, int context_tokens,
                              const RopeDefaults& defaults) {
  JsonFields fields(config.file(), std::string(name), object);
  RopeParameters rope{.rotated_part = defaults.rotated_part};
  rope.theta = SharedNumber(config, fields, "rope_theta", kMinTheta, kMaxTheta, defaults.theta);
  if (defaults.partial) {
    rope.rotated_part =
        SharedNumber(config, fields, "partial_rotary_factor", 0.0, 1.0, defaults.rotated_part);
  } else {
    config.Only("partial_rotary_factor", 1.0);
    fields.Only("partial_rotary_factor", 1.0);
  }
  ReadScaling(fields, context_tokens, rope);
  config.Nested(fields);
  return rope;
}

const nlohmann::json& NoObject() {
  static const nlohmann::json kNone = nlohmann::json::object();
  return kNone;
}

// The object of transformers 5, else that of transformers 4, else an empty one.
const nlohmann::json& RopeObject(JsonFields& config, absl::string_view* name) {
  const nlohmann::json* newer = config.Object("rope_parameters");
  const nlohmann::json* older = config.Object("rope_scaling");
  if (newer != nullptr && older != nullptr) {
    config.Fail("rope_scaling", Shown(*older), "nothing beside rope_parameters");
  }
  *name = newer != nullptr ? "rope_parameters" : "rope_scaling";
  if (newer != nullptr) return *newer;
  return older != nullptr ? *older : NoObject();
}

}  // namespace

RopeParameters ReadRope(JsonFields& config, int context_tokens, const RopeDefaults& defaults) {
  absl::string_view name;
  const nlohmann::json& object = RopeObject(config, &name);
  return ReadRopeObject(config, name, object, context_tokens, defaults);
}

RopeDescription ReadHeadRope(JsonFields& config, const ModelDescription& model, int head_dim,
                             const RopeDefaults& defaults) {
  return DescribeRope(RopeKind::kHalfSplit, ReadRope(config, model.max_context_tokens, defaults),
                      head_dim);
}

void LayerRopes::Turn(ModelDescription& model) const {
  for (LayerDescription& layer : model.layers) {
    AttentionDescription& attention = layer.attention;
    const bool slides = attention.kind == AttentionKind::kSliding;
    attention.rope =
        DescribeRope(RopeKind::kHalfSplit, slides ? sliding : full, attention.head_dim);
  }
}

LayerRopes ReadLayerRopes(JsonFields& config, int context_tokens, double theta_where_silent,
                          absl::string_view sliding_theta_key, double sliding_theta_where_silent) {
  LayerRopes ropes;
  const double sliding_theta =
      config.NumberOr(sliding_theta_key, kMinTheta, kMaxTheta, sliding_theta_where_silent);
  if (!config.Has("rope_parameters")) {
    ropes.full = ReadRope(config, context_tokens, {.theta = theta_where_silent});
    ropes.sliding.theta = sliding_theta;
    return ropes;
  }
  absl::string_view name;
  const nlohmann::json& object = RopeObject(config, &name);
  JsonFields both(config.file(), std::string(name), object);
  const auto read = [&](absl::string_view kind, double theta) {
    const nlohmann::json* one = both.Object(kind);
    if (one == nullptr) both.Fail(kind, "nothing", "the rope of these layers");
    return ReadRopeObject(both, both.FieldName(kind), one != nullptr ? *one : NoObject(),
                          context_tokens, {.theta = theta});
  };
  ropes.full = read("full_attention", theta_where_silent);
  ropes.sliding = read("sliding_attention", sliding_theta);
  config.Nested(both);
  return ropes;
}

}  // namespace troupe
