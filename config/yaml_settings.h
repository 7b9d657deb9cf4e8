// Reads a YAML mapping into flat settings, and writes settings as YAML; exceptions of the YAML
// library end here. Thread model: pure functions.
#ifndef TROUPE_CONFIG_YAML_SETTINGS_H_
#define TROUPE_CONFIG_YAML_SETTINGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

// One scalar or list of scalars; keys of enclosing mappings are joined with dots.
struct YamlSetting {
  std::string name;
  std::vector<std::string> values;
  bool is_list = false;
  int line = 0;         // 1-based, of the value
  std::string comment;  // written behind the value; not read
};

// INVALID_ARGUMENT, beginning with "origin:line:", for text that is not YAML, not a mapping, a key
// given twice, or a value that is empty or nested in a list.
absl::StatusOr<std::vector<YamlSetting>> ReadYamlSettings(absl::string_view text,
                                                          absl::string_view origin);

// Settings of one section must stand together.
std::string WriteYamlSettings(const std::vector<YamlSetting>& settings);

}  // namespace troupe

#endif  // TROUPE_CONFIG_YAML_SETTINGS_H_
