#include "config/program_config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/status_util.h"
#include "config/nearest_name.h"
#include "config/yaml_settings.h"

namespace troupe {
namespace {

template <typename T>
constexpr bool kIsList = std::is_same_v<T, std::vector<std::string>>;
template <typename T>
constexpr bool kIsNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

std::string FlagOf(absl::string_view name) {
  return absl::StrCat("--", absl::StrReplaceAll(name, {{"_", "-"}}));
}

bool ParseScalar(absl::string_view text, bool* value) { return absl::SimpleAtob(text, value); }
bool ParseScalar(absl::string_view text, float* value) { return absl::SimpleAtof(text, value); }
bool ParseScalar(absl::string_view text, double* value) { return absl::SimpleAtod(text, value); }
bool ParseScalar(absl::string_view text, std::string* value) {
  value->assign(text.data(), text.size());
  return true;
}
template <typename Integer>
bool ParseScalar(absl::string_view text, Integer* value) {
  return absl::SimpleAtoi(text, value);
}

template <typename T>
const char* KindOf() {
  if (std::is_same_v<T, bool>) return "true or false";
  if (std::is_floating_point_v<T>) return "a number";
  if (std::is_unsigned_v<T>) return "a whole number of at least 0";
  return "a whole number";
}

// "16MiB" is 16 << 20. Plain numbers have a multiplier of 1.
template <typename T>
bool ParseBytes(absl::string_view text, T* value) {
  struct Suffix {
    const char* text;
    int shift;
  };
  int shift = 0;
  for (const Suffix suffix : {Suffix{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}) {
    if (absl::ConsumeSuffix(&text, suffix.text)) {
      shift = suffix.shift;
      break;
    }
  }
  text = absl::StripTrailingAsciiWhitespace(text);
  if (!ParseScalar(text, value)) return false;
  const double scaled = static_cast<double>(*value) * static_cast<double>(1ull << shift);
  if (std::abs(scaled) >= static_cast<double>(std::numeric_limits<T>::max())) return false;
  *value = static_cast<T>(*value * static_cast<T>(1ull << shift));
  return true;
}

template <typename T>
absl::StatusOr<T> ParseValue(const std::string& text, const FieldSpec<T>& spec) {
  T value{};
  bool parsed = false;
  if constexpr (kIsNumber<T>) {
    parsed = spec.unit == "bytes" ? ParseBytes(text, &value) : ParseScalar(text, &value);
  } else {
    parsed = ParseScalar(text, &value);
  }
  if (!parsed) return absl::InvalidArgumentError(absl::StrCat("it must be ", KindOf<T>()));
  if constexpr (kIsNumber<T>) {
    // Written so that NaN fails.
    if (spec.min && !(value >= *spec.min)) {
      return absl::InvalidArgumentError(absl::StrCat("the least allowed is ", *spec.min));
    }
    if (spec.max && !(value <= *spec.max)) {
      return absl::InvalidArgumentError(absl::StrCat("the most allowed is ", *spec.max));
    }
  }
  return value;
}

template <typename T>
std::vector<std::string> Print(const T& value) {
  if constexpr (kIsList<T>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool>) {
    return {value ? "true" : "false"};
  } else if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
    std::ostringstream text;  // shortest form that most people would write
    text.precision(std::numeric_limits<T>::digits10);
    text << value;
    return {text.str()};
  } else {
    return {absl::StrCat(value)};
  }
}

template <typename T>
std::string Describe(const FieldSpec<T>& spec) {
  std::vector<std::string> notes;
  if (!spec.unit.empty()) notes.push_back(absl::StrCat("in ", spec.unit));
  if (!spec.choices.empty()) {
    notes.push_back(absl::StrCat("one of ", absl::StrJoin(spec.choices, ", ")));
  }
  if constexpr (kIsNumber<T>) {
    if (spec.min) notes.push_back(absl::StrCat("at least ", *spec.min));
    if (spec.max) notes.push_back(absl::StrCat("at most ", *spec.max));
  }
  if (spec.required) notes.push_back("required");
  if (!spec.environment.empty()) notes.push_back(absl::StrCat("or $", spec.environment));
  if (notes.empty()) return spec.help;
  return absl::StrCat(spec.help, " (", absl::StrJoin(notes, "; "), ")");
}

std::string At(absl::string_view where) {
  return where.empty() ? std::string() : absl::StrCat(where, ": ");
}

}  // namespace

struct ProgramConfig::Field {
  std::string name;
  std::string description;
  std::string environment;
  std::vector<std::string> choices;
  bool is_bool = false;
  bool is_list = false;
  bool required = false;
  bool secret = false;
  std::string short_flag;
  const char* source = "default";
  // Parses, checks and, only when all is well, writes the target.
  std::function<absl::Status(const std::vector<std::string>&)> set;
  std::function<std::vector<std::string>()> get;
};

// What CLI11 found, before any of it is judged.
struct ProgramConfig::CommandLine {
  std::string config_path;
  bool print_config = false;
  std::vector<std::pair<std::string, std::vector<std::string>>> values;  // by field name
  std::vector<std::string> positionals;
  std::vector<std::string> unknown;
  std::optional<std::string> help;
};

ProgramConfig::ProgramConfig(std::string program, std::string summary)
    : program_(std::move(program)), summary_(std::move(summary)) {}
ProgramConfig::~ProgramConfig() = default;

ProgramConfig::Field& ProgramConfig::Declare(std::string name) {
  fields_.emplace_back();
  fields_.back().name = std::move(name);
  return fields_.back();
}

template <typename T>
void ProgramConfig::Add(std::string name, T* target, FieldSpec<std::type_identity_t<T>> spec) {
  Field& field = Declare(std::move(name));
  field.description = Describe(spec);
  field.environment = spec.environment;
  field.choices = spec.choices;
  field.is_bool = std::is_same_v<T, bool>;
  field.is_list = kIsList<T>;
  field.required = spec.required;
  field.secret = spec.secret;
  field.short_flag = spec.short_flag;
  field.get = [target] { return Print(*target); };
  field.set = [target, spec](const std::vector<std::string>& values) -> absl::Status {
    if constexpr (kIsList<T>) {
      *target = values;
    } else {
      absl::StatusOr<T> value = ParseValue<T>(values.back(), spec);
      if (!value.ok()) return value.status();
      *target = *std::move(value);
    }
    return absl::OkStatus();
  };
}

template void ProgramConfig::Add(std::string, bool*, FieldSpec<bool>);
template void ProgramConfig::Add(std::string, int32_t*, FieldSpec<int32_t>);
template void ProgramConfig::Add(std::string, int64_t*, FieldSpec<int64_t>);
template void ProgramConfig::Add(std::string, uint32_t*, FieldSpec<uint32_t>);
template void ProgramConfig::Add(std::string, uint64_t*, FieldSpec<uint64_t>);
template void ProgramConfig::Add(std::string, float*, FieldSpec<float>);
template void ProgramConfig::Add(std::string, double*, FieldSpec<double>);
template void ProgramConfig::Add(std::string, std::string*, FieldSpec<std::string>);
template void ProgramConfig::Add(std::string, std::vector<std::string>*,
                                 FieldSpec<std::vector<std::string>>);

void ProgramConfig::AddPositional(std::string name, std::vector<std::string>* target,
                                  std::string help) {
  positional_name_ = std::move(name);
  positional_target_ = target;
  positional_help_ = std::move(help);
}

void ProgramConfig::AddExample(std::string command) { examples_.push_back(std::move(command)); }

ProgramConfig::Field* ProgramConfig::Find(absl::string_view name) {
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [name](const Field& field) { return field.name == name; });
  return found == fields_.end() ? nullptr : &*found;
}

std::string ProgramConfig::Suggestion(absl::string_view name, bool as_flag) const {
  std::vector<std::string> known;
  for (const Field& field : fields_) known.push_back(as_flag ? FlagOf(field.name) : field.name);
  if (as_flag) known.insert(known.end(), {"--config", "--help", "--print-config"});
  const std::string* best = NearestName(name, known);
  if (best != nullptr) return absl::StrCat("; did you mean \"", *best, "\"?");
  return absl::StrCat("; ", program_, " --help lists what there is");
}

absl::Status ProgramConfig::Assign(Field& field, const std::vector<std::string>& values,
                                   const char* source, absl::string_view where) {
  const std::string shown =
      field.secret ? std::string("***") : absl::StrJoin(values, ", ").substr(0, 200);
  for (const std::string& value : values) {
    const auto& choices = field.choices;
    if (choices.empty() || std::count(choices.begin(), choices.end(), value) > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(At(where), field.name, " is \"", shown,
                                                   "\"; it must be one of ",
                                                   absl::StrJoin(choices, ", ")));
  }
  if (absl::Status status = field.set(values); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(At(where), field.name, " is \"", shown, "\"; ", status.message()));
  }
  field.source = source;
  return absl::OkStatus();
}

absl::Status ProgramConfig::LoadYaml(absl::string_view text, absl::string_view origin) {
  auto settings = ReadYamlSettings(text, origin);
  if (!settings.ok()) return settings.status();
  for (const YamlSetting& setting : *settings) {
    const std::string where = absl::StrCat(origin, ":", setting.line);
    Field* field = Find(setting.name);
    if (field == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": unknown key \"", setting.name, "\"",
                                                     Suggestion(setting.name, false)));
    }
    if (setting.is_list && !field->is_list) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": ", setting.name, " is a list; it must be one value"));
    }
    TROUPE_RETURN_IF_ERROR(Assign(*field, setting.values, "file", where));
  }
  return absl::OkStatus();
}

absl::Status ProgramConfig::LoadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    // An empty file sets failbit on `text`, and is a valid configuration.
    if (file.is_open() && file.peek() == std::ifstream::traits_type::eof()) {
      return absl::OkStatus();
    }
    return absl::NotFoundError(
        absl::StrCat("--config: cannot read \"", path, "\"; check the path and its permissions"));
  }
  return LoadYaml(text.str(), path);
}

absl::Status ProgramConfig::ApplyEnvironment() {
  for (Field& field : fields_) {
    if (field.environment.empty()) continue;
    const char* value = std::getenv(field.environment.c_str());
    if (value == nullptr) continue;
    TROUPE_RETURN_IF_ERROR(
        Assign(field, {value}, "environment", absl::StrCat("$", field.environment)));
  }
  return absl::OkStatus();
}

absl::Status ProgramConfig::ApplyCommandLine(const CommandLine& line) {
  for (const std::string& argument : line.unknown) {
    if (!absl::StartsWith(argument, "-")) continue;
    const std::string flag = argument.substr(0, argument.find('='));
    return absl::InvalidArgumentError(
        absl::StrCat("unknown flag \"", flag, "\"", Suggestion(flag, true)));
  }
  if (!line.unknown.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument \"", line.unknown.front(),
                                                   "\"; ", program_, " --help shows the usage"));
  }
  for (const auto& [name, values] : line.values) {
    TROUPE_RETURN_IF_ERROR(Assign(*Find(name), values, "flag", FlagOf(name)));
  }
  if (positional_target_ != nullptr) *positional_target_ = line.positionals;
  return absl::OkStatus();
}

absl::Status ProgramConfig::CheckRequired() const {
  for (const Field& field : fields_) {
    if (!field.required || absl::string_view(field.source) != "default") continue;
    return absl::InvalidArgumentError(absl::StrCat(field.name, " is required; give ",
                                                   FlagOf(field.name), " or set it in --config"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ProgramConfig::Action> ProgramConfig::Parse(int argc, const char* const* argv,
                                                           std::ostream& out) {
  CLI::App app(summary_, program_);
  app.allow_extras();
  CommandLine line;
  app.add_option("--config", line.config_path, "YAML file; keys are the flags' names with _")
      ->type_name("FILE");
  app.add_flag("--print-config", line.print_config, "Print the effective configuration and exit");
  if (positional_target_ != nullptr) {
    app.add_option(positional_name_, line.positionals, positional_help_)->type_name("");
  }
  if (!examples_.empty()) {
    app.footer(absl::StrCat("Examples:\n  ", absl::StrJoin(examples_, "\n  ")));
  }
  std::vector<std::vector<std::string>> found(fields_.size());
  for (size_t i = 0; i < fields_.size(); ++i) {
    const Field& field = fields_[i];
    const std::string flag = FlagOf(field.name);
    const std::string shown = field.secret ? "" : absl::StrJoin(field.get(), ", ");
    if (field.is_bool) {
      const std::string names = absl::StrCat(flag, ",--no-", flag.substr(2), "{false}");
      app.add_flag(names, found[i], absl::StrCat(field.description, " [", shown, "]"));
    } else {
      const std::string names = absl::StrCat(field.short_flag, ",", flag);
      CLI::Option* option = app.add_option(names, found[i], field.description)->type_name("");
      option->allow_extra_args(false);
      if (!field.is_list) option->expected(1)->take_last();
      if (!shown.empty()) option->default_str(shown);
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    out << app.help();
    return Action::kExit;
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(error.what());
  }
  line.unknown = app.remaining();
  std::erase(line.unknown, "--");  // CLI11 leaves it there
  for (size_t i = 0; i < fields_.size(); ++i) {
    if (!found[i].empty()) line.values.emplace_back(fields_[i].name, std::move(found[i]));
  }

  if (!line.config_path.empty()) TROUPE_RETURN_IF_ERROR(LoadFile(line.config_path));
  TROUPE_RETURN_IF_ERROR(ApplyEnvironment());
  TROUPE_RETURN_IF_ERROR(ApplyCommandLine(line));
  TROUPE_RETURN_IF_ERROR(CheckRequired());
  if (!line.print_config) return Action::kRun;
  out << EffectiveYaml();
  return Action::kExit;
}

std::optional<int> ProgramConfig::ParseMain(int argc, const char* const* argv) {
  constexpr int kUsageError = 2;
  absl::StatusOr<Action> action = Parse(argc, argv, std::cout);
  if (!action.ok()) {
    std::cerr << program_ << ": " << action.status().message() << "\n";
    return kUsageError;
  }
  if (*action == Action::kExit) return EXIT_SUCCESS;
  return std::nullopt;
}

std::string ProgramConfig::EffectiveYaml() const {
  std::vector<YamlSetting> settings;
  for (const Field& field : fields_) {
    YamlSetting setting{.name = field.name, .values = field.get(), .is_list = field.is_list};
    if (field.secret && !field.get().front().empty()) setting.values = {"***"};
    setting.comment = field.source;
    settings.push_back(std::move(setting));
  }
  return WriteYamlSettings(settings);
}

}  // namespace troupe
