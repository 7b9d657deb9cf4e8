// Configuration of a program: one declaration of each field serves flags, a YAML file, `--help`,
// range checks and the printed effective configuration.
//
// A field has a snake_case name, `max_batch_size`: that is its YAML key, and its flag is
// `--max-batch-size`. A dot makes a section: `scheduler.max_batch_size` is the key `max_batch_size`
// under `scheduler:`, and the flag `--scheduler.max-batch-size`. Later sources win: the struct's
// own initialiser, the file named by `--config`, the environment, the command line. Whatever is not
// known is refused, with the nearest known name.
//
//     CacheServer::Config config;
//     ProgramConfig program("troupe-cache", "Keeps KV blocks across requests and restarts.");
//     program.Add("listen", &config.listen, {.help = "Address to serve on."});
//     program.Add("capacity_bytes", &config.capacity_bytes,
//                 {.help = "Most bytes to keep.", .unit = "bytes", .min = 1 << 20});
//     program.AddExample("troupe-cache --data-dir /var/lib/troupe --capacity-bytes 100GiB");
//     if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
//
// A program with subcommands makes one ProgramConfig for each ("troupe run") and hands it the
// arguments from the subcommand's own name on.
//
// Thread model: one thread, before the program starts others.
// Ownership: targets belong to the caller and must outlive the ProgramConfig.
// Invariants: a target is written only by Parse or LoadYaml, and never with a value that a check
// refused.
#ifndef TROUPE_CONFIG_PROGRAM_CONFIG_H_
#define TROUPE_CONFIG_PROGRAM_CONFIG_H_

#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

// How one field reads in help and which values it takes.
template <typename T>
struct FieldSpec {
  std::string help;      // one sentence
  std::string unit;      // "ms", "tokens"...; "bytes" also takes the suffixes KiB, MiB, GiB and TiB
  std::optional<T> min;  // least and greatest value that is taken; numbers only
  std::optional<T> max;
  std::vector<std::string> choices;  // where not empty: the only values that are taken
  std::string environment;           // variable that overrides the file
  bool required = false;             // must come from a file, the environment or a flag
  bool secret = false;               // printed as "***"
  std::string short_flag;            // one letter besides the long flag: "-o"
};

class ProgramConfig {
 public:
  enum class Action { kRun, kExit };

  // `program` is the name as typed; `summary` is one or two sentences.
  ProgramConfig(std::string program, std::string summary);
  ~ProgramConfig();
  ProgramConfig(const ProgramConfig&) = delete;
  ProgramConfig& operator=(const ProgramConfig&) = delete;

  // Declares a field whose default is what `*target` holds now. T: bool, int32_t, uint32_t,
  // int64_t, uint64_t, float, double, std::string, or std::vector<std::string> (a YAML list, or a
  // repeated flag). A bool field `x` has the flags --x and --no-x.
  template <typename T>
  void Add(std::string name, T* target, FieldSpec<std::type_identity_t<T>> spec);

  // Takes what stands on the command line without a flag, in order; without this it is refused.
  void AddPositional(std::string name, std::vector<std::string>* target, std::string help);

  // Shown under "Examples" by --help.
  void AddExample(std::string command);

  // Reads the command line and, where it says so, the file. kExit: --help or --print-config has
  // been answered on `out`. INVALID_ARGUMENT names the flag, or file:line and key; NOT_FOUND the
  // file.
  absl::StatusOr<Action> Parse(int argc, const char* const* argv, std::ostream& out);

  // Parse for main(): prints to stdout and stderr; a value is the exit code to leave main() with.
  std::optional<int> ParseMain(int argc, const char* const* argv);

  // Applies YAML text; `origin` names it in errors.
  absl::Status LoadYaml(absl::string_view text, absl::string_view origin);

  // Every field's value as YAML that Parse would accept, each with where it came from.
  std::string EffectiveYaml() const;

 private:
  struct Field;
  struct CommandLine;

  Field& Declare(std::string name);
  Field* Find(absl::string_view name);
  std::string Suggestion(absl::string_view name, bool as_flag) const;
  absl::Status Assign(Field& field, const std::vector<std::string>& values, const char* source,
                      absl::string_view where);
  absl::Status LoadFile(const std::string& path);
  absl::Status ApplyEnvironment();
  absl::Status ApplyCommandLine(const CommandLine& line);
  absl::Status CheckRequired() const;

  std::string program_;
  std::string summary_;
  std::vector<Field> fields_;
  std::vector<std::string> examples_;
  std::string positional_name_;
  std::string positional_help_;
  std::vector<std::string>* positional_target_ = nullptr;
};

}  // namespace troupe

#endif  // TROUPE_CONFIG_PROGRAM_CONFIG_H_
