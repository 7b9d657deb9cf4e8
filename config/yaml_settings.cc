#include "config/yaml_settings.h"

#include <yaml-cpp/yaml.h>

#include <exception>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace troupe {
namespace {

class Flattener {
 public:
  explicit Flattener(absl::string_view origin) : origin_(origin) {}

  absl::Status Walk(const YAML::Node& mapping, const std::string& prefix, int depth) {
    if (depth > kMaxSections) return Error(mapping, "sections are nested too deeply");
    for (const auto& entry : mapping) {
      if (!entry.first.IsScalar()) return Error(entry.first, "a key must be a name");
      const std::string name = absl::StrCat(prefix, entry.first.Scalar());
      if (!seen_.insert(name).second) {
        return Error(entry.first, absl::StrCat("\"", name, "\" is given twice; keep one"));
      }
      absl::Status status = entry.second.IsMap()
                                ? Walk(entry.second, absl::StrCat(name, "."), depth + 1)
                                : AddValue(name, entry.second);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  std::vector<YamlSetting> Take() { return std::move(settings_); }

  absl::Status Error(const YAML::Node& node, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(origin_, ":", node.Mark().line + 1, ": ", what));
  }

 private:
  static constexpr int kMaxSections = 8;

  absl::Status AddValue(const std::string& name, const YAML::Node& node) {
    YamlSetting setting{.name = name, .line = node.Mark().line + 1};
    if (node.IsScalar()) {
      setting.values.push_back(node.Scalar());
    } else if (node.IsSequence()) {
      setting.is_list = true;
      for (const auto& element : node) {
        if (!element.IsScalar()) {
          return Error(element, absl::StrCat("\"", name, "\" must be a list of plain values"));
        }
        setting.values.push_back(element.Scalar());
      }
    } else {
      return Error(node, absl::StrCat("\"", name, "\" has no value; give one or remove the key"));
    }
    settings_.push_back(std::move(setting));
    return absl::OkStatus();
  }

  std::string origin_;
  std::set<std::string> seen_;
  std::vector<YamlSetting> settings_;
};

}  // namespace

absl::StatusOr<std::vector<YamlSetting>> ReadYamlSettings(absl::string_view text,
                                                          absl::string_view origin) {
  try {
    const YAML::Node root = YAML::Load(std::string{text});
    Flattener flattener(origin);
    if (root.IsNull()) return std::vector<YamlSetting>();
    if (!root.IsMap()) return flattener.Error(root, "expected lines of the form \"name: value\"");
    absl::Status status = flattener.Walk(root, "", 0);
    if (!status.ok()) return status;
    return flattener.Take();
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(origin, ":", error.mark.line + 1, ": not valid YAML: ", error.msg));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(origin, ":1: not valid YAML: ", error.what()));
  }
}

std::string WriteYamlSettings(const std::vector<YamlSetting>& settings) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  std::vector<std::string> open;  // sections that are open now
  for (const YamlSetting& setting : settings) {
    std::vector<std::string> path = absl::StrSplit(setting.name, '.');
    const std::string leaf = path.back();
    path.pop_back();
    size_t shared = 0;
    while (shared < open.size() && shared < path.size() && open[shared] == path[shared]) ++shared;
    for (; open.size() > shared; open.pop_back()) out << YAML::EndMap;
    for (; open.size() < path.size(); open.push_back(path[open.size()])) {
      out << YAML::Key << path[open.size()] << YAML::Value << YAML::BeginMap;
    }
    out << YAML::Key << leaf << YAML::Value;
    if (setting.is_list) out << YAML::Flow << setting.values;
    if (!setting.is_list) out << setting.values.front();
    if (!setting.comment.empty()) out << YAML::Comment(setting.comment);
  }
  for (; !open.empty(); open.pop_back()) out << YAML::EndMap;
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace troupe
