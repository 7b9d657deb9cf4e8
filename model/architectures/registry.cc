#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_util.h"
#include "model/architectures/architecture.h"
#include "model/architectures/families.h"

namespace troupe {
namespace {

std::string KnownTypes() {
  return absl::StrJoin(Architectures(), ", ", [](std::string* out, const Architecture* known) {
    absl::StrAppend(out, known->model_type, " (", known->class_name, ")");
  });
}

// By model_type, or by a name in `architectures` where model_type is absent.
absl::StatusOr<const Architecture*> FindArchitecture(JsonFields& config) {
  const bool typed = config.Has("model_type");
  const std::string model_type = typed ? config.String("model_type") : "";
  const std::vector<std::string> classes =
      config.Has("architectures") ? config.StringList("architectures") : std::vector<std::string>{};
  for (const Architecture* known : Architectures()) {
    const bool named = classes.size() == 1 && classes[0] == known->class_name;
    if (typed ? model_type == known->model_type && (classes.empty() || named) : named) {
      return known;
    }
  }
  // Reports a field of the wrong type as that, rather than as an unknown family.
  TROUPE_RETURN_IF_ERROR(config.status());
  return absl::UnimplementedError(
      absl::StrCat(config.file(), ": model_type: found '", model_type, "' with architectures [",
                   absl::StrJoin(classes, ", "), "], wanted one of ", KnownTypes()));
}

// Keys of any family that say how the checkpoint was made, trained or stored, or how transformers
// should go about it, but not what it computes. The weights themselves say their dtype.
void IgnoreWhatChangesNothing(JsonFields& config) {
  config.Ignore({"torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map"});
  config.Ignore({"use_cache", "cache_implementation", "pretraining_tp", "ep_size"});
  config.Ignore({"_attn_implementation", "_attn_implementation_autoset", "_experts_implementation",
                 "output_attentions", "output_hidden_states", "return_dict"});
  // Training alone.
  config.Ignore({"initializer_range", "attention_dropout", "output_router_logits",
                 "router_aux_loss_coef", "aux_loss_alpha", "seq_aux", "router_jitter_noise"});
}

}  // namespace

std::span<const Architecture* const> Architectures() {
  static const std::array kArchitectures = {
      &AbacusArchitecture(),     &DeepSeekV2Architecture(), &DeepSeekV3Architecture(),
      &Gemma3TextArchitecture(), &Glm4MoeArchitecture(),    &GptOssArchitecture(),
      &LlamaArchitecture(),      &MiniMaxM2Architecture(),  &MixtralArchitecture(),
      &Olmo3Architecture(),      &Qwen2Architecture(),      &Qwen3Architecture(),
      &Qwen3MoeArchitecture(),   &SmolLm3Architecture(),
  };
  return kArchitectures;
}

absl::StatusOr<ConfiguredModel> DescribeConfig(const std::string& file,
                                               const nlohmann::json& config) {
  JsonFields fields(file, "", config);
  TROUPE_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(fields));
  IgnoreWhatChangesNothing(fields);
  Quantization quantization = Quantization::Read(fields);
  ModelDescription description = architecture->describe(fields);
  TROUPE_RETURN_IF_ERROR(fields.Finish());
  description.architecture = std::string(architecture->name);
  TROUPE_RETURN_IF_ERROR(Annotate(ValidateDescription(description), file));
  return ConfiguredModel{architecture, std::move(description), std::move(quantization)};
}

}  // namespace troupe
