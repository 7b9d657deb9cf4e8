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
#include "sharding/layout_rules.h"
#include "tests/golden/abacus_check.h"
#include "tests/golden/model_check.h"

namespace troupe {
namespace {

struct Settings {
  std::vector<std::string> folders;
  std::string device = "cpu";
  std::string layout = "tp1";
  int ranks = 8;
  std::string transport = "memory";
  bool verbose = false;
};

// What one folder showed, over its configs and feeds.
struct Summary {
  float error = 0;
  int64_t greedy_equal = 0;
  int64_t greedy_tokens = 0;
  std::vector<std::string> misses;
  std::string refused;  // why the layout cannot be loaded: groups that it would cut

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

CompareOptions OptionsFor(const Settings& settings, const Layout& layout) {
  CompareOptions options{
      .device = settings.device, .layout = layout, .gloo = settings.transport == "gloo"};
  if (layout.world() > 1) options.feeds = {PromptFeed::kRagged};
  return options;
}

void AddComparisons(absl::string_view config,
                    const absl::StatusOr<std::vector<ModelComparison>>& comparisons,
                    const Settings& settings, Summary& summary) {
  if (!comparisons.ok()) {
    const bool many = settings.layout != "tp1" && absl::IsUnimplemented(comparisons.status());
    if (many) {
      summary.refused = std::string(comparisons.status().message());
    } else {
      summary.misses.push_back(absl::StrCat(config, ": ", comparisons.status().ToString()));
    }
    return;
  }
  for (const ModelComparison& comparison : *comparisons) {
    summary.Add(comparison);
    if (settings.verbose) std::cout << "       " << Summary::Line(comparison) << "\n";
  }
}

// The bundled model's goldens lie elsewhere, in a form of their own.
bool IsAbacus(const std::string& folder) {
  std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename() == "abacus";
}

// Replicas of many ranks are looked at with one config: what a config says is settled before.
Summary CheckFolder(const std::string& folder, const Layout& layout, const Settings& settings) {
  Summary summary;
  const CompareOptions options = OptionsFor(settings, layout);
  if (IsAbacus(folder)) {
    const auto comparison = CompareAbacus(options);
    if (comparison.ok()) {
      AddComparisons(kModelConfigs[0], std::vector<ModelComparison>{*comparison}, settings,
                     summary);
    } else {
      summary.misses.push_back(comparison.status().ToString());
    }
    return summary;
  }
  for (const absl::string_view config : kModelConfigs) {
    AddComparisons(config, CompareModel(folder, config, options), settings, summary);
    if (layout.world() > 1) break;
  }
  return summary;
}

// Whether all layouts match; prints a line for each.
bool CheckLayouts(const std::string& folder, const Settings& settings) {
  absl::StatusOr<std::vector<Layout>> layouts = std::vector<Layout>();
  if (settings.layout == "all") {
    layouts = LayoutsOf(folder, settings.ranks);
  } else if (const auto one = ParseLayout(settings.layout); one.ok()) {
    layouts->push_back(*one);
  } else {
    layouts = one.status();
  }
  if (!layouts.ok()) {
    std::cout << "MISS   " << folder << ": " << layouts.status().message() << "\n";
    return false;
  }
  bool all_match = true;
  for (const Layout& layout : *layouts) {
    const Summary summary = CheckFolder(folder, layout, settings);
    const std::string name = layout.world() > 1 ? NameOf(layout) : "";
    if (!summary.refused.empty()) {
      std::cout << absl::StrFormat("none   %-40s %-16s %s\n", folder, name, summary.refused);
      continue;
    }
    std::cout << absl::StrFormat("%s   %-40s %-16s largest error %.2g, greedy %d/%d\n",
                                 summary.misses.empty() ? "ok  " : "MISS", folder, name,
                                 summary.error, summary.greedy_equal, summary.greedy_tokens);
    for (const std::string& miss : summary.misses) std::cout << "       " << miss << "\n";
    std::cout << std::flush;
    all_match = all_match && summary.misses.empty();
  }
  return all_match;
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
  program.Add("layout", &settings.layout,
              {.help = "How a replica of ranks, each a thread, is laid out, as in \"tp2 dp2 ep\"; "
                       "all: every one of powers of two."});
  program.Add("ranks", &settings.ranks, {.help = "The most ranks of --layout all."});
  program.Add("transport", &settings.transport,
              {.help = "How ranks talk.", .choices = {"memory", "gloo"}});
  program.Add("verbose", &settings.verbose, {.help = "A line for each config and way to feed."});
  program.AddExample("tests/golden/check tests/golden/models/*");
  program.AddExample("tests/golden/check tests/golden/models/llama --verbose");
  program.AddExample("tests/golden/check tests/golden/models/* models/abacus --layout all");
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
    passed += CheckLayouts(folder, settings) ? 1 : 0;
  }
  std::cout << passed << " of " << settings.folders.size() << " folders match\n";
  return passed == settings.folders.size() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
