#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_util.h"
#include "model/architectures/abacus.h"
#include "model/architectures/architecture.h"

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

}  // namespace

std::span<const Architecture* const> Architectures() {
  static const std::array kArchitectures = {&AbacusArchitecture()};
  return kArchitectures;
}

absl::StatusOr<ConfiguredModel> DescribeConfig(const std::string& file,
                                               const nlohmann::json& config) {
  JsonFields fields(file, "", config);
  TROUPE_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(fields));
  // Facts about how the checkpoint was made or is stored, not about what it computes; the weights
  // themselves say their dtype.
  fields.Ignore({"torch_dtype", "dtype", "transformers_version", "_name_or_path", "use_cache",
                 "initializer_range"});
  ModelDescription description = architecture->describe(fields);
  TROUPE_RETURN_IF_ERROR(fields.Finish());
  description.architecture = std::string(architecture->name);
  TROUPE_RETURN_IF_ERROR(Annotate(ValidateDescription(description), file));
  return ConfiguredModel{architecture, std::move(description)};
}

}  // namespace troupe
