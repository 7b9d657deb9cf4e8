// tests/golden/check: compares model folders with the golden tensors beside them.

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/program_config.h"
#include "tests/golden/model_check.h"

namespace troupe {
namespace {

struct Settings {
  std::vector<std::string> folders;
  std::string device = "cpu";
  bool verbose = false;
};

// What one folder showed, over its configs and feeds.
struct Summary {
  float error = 0;
  int64_t greedy_equal = 0;
  int64_t greedy_tokens = 0;
  std::vector<std::string> misses;

  void Add(const ModelComparison& comparison) {
    error =
        std::isnan(error) || std::isnan(comparison.error) ? NAN : std::max(error, comparison.error);
    greedy_equal += comparison.greedy_equal;
    greedy_tokens += comparison.greedy_tokens;
    if (!comparison.ok()) misses.push_back(Line(comparison));
  }

  static std::string Line(const ModelComparison& comparison) {
    std::string line =
        absl::StrFormat("%-18s %-16s largest error %.2g, greedy %d/%d", comparison.config,
                        PromptFeedName(comparison.feed), comparison.error, comparison.greedy_equal,
                        comparison.greedy_tokens);
    if (comparison.greedy_equal != comparison.greedy_tokens) {
      absl::StrAppendFormat(&line, " (margin %.2g at the first that differs)",
                            comparison.margin_at_miss);
    }
    return line;
  }
};

Summary CheckFolder(const std::string& folder, const Settings& settings) {
  Summary summary;
  for (const absl::string_view config : kModelConfigs) {
    const auto comparisons = CompareModel(folder, config, settings.device);
    if (!comparisons.ok()) {
      summary.misses.push_back(absl::StrCat(config, ": ", comparisons.status().ToString()));
      continue;
    }
    for (const ModelComparison& comparison : *comparisons) {
      summary.Add(comparison);
      if (settings.verbose) std::cout << "       " << Summary::Line(comparison) << "\n";
    }
  }
  return summary;
}

int Main(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("tests/golden/check",
                        "Runs model folders in f32 and compares logits and greedy continuations "
                        "with the golden tensors beside them.");
  program.AddPositional("FOLDER", &settings.folders,
                        "Folders with config.json, config.legacy.json, weights and "
                        "golden.safetensors.");
  program.Add("device", &settings.device,
              {.help = "What computes; reference is the naive oracle on the CPU.",
               .choices = {"cpu", "reference", "cuda"}});
  program.Add("verbose", &settings.verbose, {.help = "A line for each config and way to feed."});
  program.AddExample("tests/golden/check tests/golden/models/*");
  program.AddExample("tests/golden/check tests/golden/models/llama --verbose");
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  // Before any folder: each would say the same.
  absl::Status usable = MakeDeviceOps(settings.device).status();
  if (settings.folders.empty()) usable = absl::InvalidArgumentError("found no FOLDER, wanted some");
  if (!usable.ok()) {
    std::cerr << "tests/golden/check: " << usable.message() << "\n";
    return 2;
  }
  size_t passed = 0;
  for (const std::string& folder : settings.folders) {
    const Summary summary = CheckFolder(folder, settings);
    passed += summary.misses.empty() ? 1 : 0;
    std::cout << absl::StrFormat("%s   %-40s largest error %.2g, greedy %d/%d\n",
                                 summary.misses.empty() ? "ok  " : "MISS", folder, summary.error,
                                 summary.greedy_equal, summary.greedy_tokens);
    for (const std::string& miss : summary.misses) std::cout << "       " << miss << "\n";
    std::cout << std::flush;
  }
  std::cout << passed << " of " << settings.folders.size() << " folders match\n";
  return passed == settings.folders.size() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
