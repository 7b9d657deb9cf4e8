// troupe inspect: what a model folder holds and needs.

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/inspect_ranks.h"
#include "config/program_config.h"
#include "model/checkpoint.h"
#include "model/description.h"
#include "nlohmann/json.hpp"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

// K and V bytes of one token in all groups, pages counted as full.
double BytesPerToken(const StateGroup& group) {
  return static_cast<double>(group.page_bytes) / kBlockTokens;
}

Json DescribeGroups(const ModelDescription& model, const StateGroupOptions& options) {
  Json groups = Json::array();
  for (const StateGroup& group : StateGroups(model, options)) {
    groups.push_back({{"name", group.name},
                      {"window_tokens", group.window_tokens},
                      {"page_bytes", group.page_bytes},
                      {"bytes_per_token", BytesPerToken(group)}});
  }
  return groups;
}

const char* KindName(const AttentionDescription& attention) {
  switch (attention.kind) {
    case AttentionKind::kSliding:
      return "sliding";
    case AttentionKind::kNsa:
      return "sparse";
    case AttentionKind::kFull:
      break;
  }
  return attention.mla ? "latent" : "full";
}

// How many layers there are of each kind, in the order in which people care.
Json DescribeLayers(const ModelDescription& model) {
  Json kinds = {{"full", 0}, {"latent", 0}, {"sliding", 0}, {"sparse", 0}};
  int experts = 0;
  int unturned = 0;
  for (const LayerDescription& layer : model.layers) {
    const AttentionDescription& attention = layer.attention;
    const char* kind = KindName(attention);
    kinds[kind] = kinds[kind].get<int>() + 1;
    experts += std::holds_alternative<MoeFfn>(layer.ffn) ? 1 : 0;
    unturned += attention.rope.kind == RopeKind::kNone ? 1 : 0;
  }
  kinds["with_experts"] = experts;
  kinds["without_positions"] = unturned;
  return kinds;
}

// A way to hold the weights. Those that quantise pack matrices in groups of 64 with a scale of 16
// bits each; embeddings, norms and biases stay in bf16.
struct WeightFormat {
  const char* name;
  double bits_of_matrices;
  double bits_of_others;
};
constexpr WeightFormat kWeightFormats[] = {{"f32", 32, 32},
                                           {"bf16", 16, 16},
                                           {"int8-g64", 8 + 16.0 / 64, 16},
                                           {"int4-g64", 4 + 16.0 / 64, 16}};

int64_t WeightBytes(const ParameterCounts& parameters, const WeightFormat& format) {
  const auto others = static_cast<double>(parameters.total - parameters.matrices);
  return static_cast<int64_t>((static_cast<double>(parameters.matrices) * format.bits_of_matrices +
                               others * format.bits_of_others) /
                              8);
}

Json DescribeFormats(const ParameterCounts& parameters) {
  Json formats = Json::object();
  for (const WeightFormat& format : kWeightFormats) {
    formats[format.name] = WeightBytes(parameters, format);
  }
  return formats;
}

// For this machine and for sizes of memory that devices come with: sequences of the longest context
// whose K and V in bf16 fit beside the weights in each format; -1 where the weights alone do not.
Json DescribeMachines(const ModelDescription& model, const ParameterCounts& parameters) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  const int64_t here = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  const std::pair<const char*, int64_t> machines[] = {
      {"this machine", here},  {"24 GiB", 24 * kGiB},         {"80 GiB", 80 * kGiB},
      {"141 GiB", 141 * kGiB}, {"8 x 80 GiB", 8 * 80 * kGiB}, {"8 x 141 GiB", 8 * 141 * kGiB},
  };
  const int64_t sequence = std::max<int64_t>(
      1, StateBytes(StateGroups(model, {.kv_bytes_per_element = 2}), model.max_context_tokens));
  Json rows = Json::array();
  for (const auto& [name, memory] : machines) {
    Json sequences = Json::object();
    for (const WeightFormat& format : kWeightFormats) {
      const int64_t left = memory - WeightBytes(parameters, format);
      sequences[format.name] = left < 0 ? -1 : left / sequence;
    }
    rows.push_back({{"name", name}, {"memory_bytes", memory}, {"longest_sequences", sequences}});
  }
  return rows;
}

Json Describe(const Checkpoint& checkpoint, const ModelIdentity& identity) {
  const ModelDescription& model = checkpoint.description();
  const ParameterCounts& parameters = checkpoint.parameters();
  Json bytes = Json::object();
  for (const auto& [dtype, count] : parameters.bytes_by_dtype) {
    bytes[std::string(DTypeName(dtype))] = count;
  }
  return {{"folder", checkpoint.folder()},
          {"architecture", model.architecture},
          {"identity", identity.Hex()},
          {"quantization", checkpoint.quantization()},
          {"layers", model.layers.size()},
          {"layer_kinds", DescribeLayers(model)},
          {"early_exits", model.early_exit_layers.size()},
          {"mtp", model.mtp.has_value()},
          {"hidden_size", model.hidden_size},
          {"vocab_size", model.vocab_size},
          {"max_context_tokens", model.max_context_tokens},
          {"tensors", parameters.tensors},
          {"parameters", parameters.total},
          {"active_parameters", parameters.active},
          {"stored_bytes", bytes},
          {"bytes_by_format", DescribeFormats(parameters)},
          {"kv_bf16", DescribeGroups(model, {.kv_bytes_per_element = 2})},
          {"kv_fp8", DescribeGroups(model, {.kv_bytes_per_element = 1, .kv_scale_bytes = 1})},
          {"machines", DescribeMachines(model, parameters)}};
}

std::string LayerKinds(const Json& kinds) {
  std::vector<std::string> parts;
  for (const auto& [kind, count] : kinds.items()) {
    if (count.get<int>() == 0) continue;
    parts.push_back(absl::StrCat(count.get<int>(), " ", absl::StrReplaceAll(kind, {{"_", " "}})));
  }
  return absl::StrJoin(parts, ", ");
}

void PrintMachines(const Json& machines) {
  std::cout << "\nsequences of the longest context that fit beside the weights, K and V in bf16\n";
  std::string header = absl::StrFormat("%-20s", "");
  for (const WeightFormat& format : kWeightFormats) {
    absl::StrAppendFormat(&header, "%12s", format.name);
  }
  std::cout << header << "\n";
  for (const Json& machine : machines) {
    std::string row = absl::StrFormat("%-20s", machine["name"].get<std::string>());
    for (const auto& [format, sequences] : machine["longest_sequences"].items()) {
      const auto count = sequences.get<int64_t>();
      absl::StrAppendFormat(&row, "%12s", count < 0 ? "too large" : absl::StrCat(count));
    }
    std::cout << row << "\n";
  }
}

void PrintText(const Json& json) {
  auto line = [](absl::string_view name, const std::string& value) {
    std::cout << absl::StrFormat("%-20s %s\n", name, value);
  };
  line("folder", json["folder"]);
  line("architecture", json["architecture"]);
  line("identity", json["identity"]);
  line("quantization", json["quantization"]);
  line("layers", absl::StrCat(json["layers"].get<int>(), ": ", LayerKinds(json["layer_kinds"])));
  line("context", absl::StrCat(json["max_context_tokens"].get<int>(), " tokens"));
  line("parameters",
       absl::StrCat(json["parameters"].get<int64_t>(), " in ", json["tensors"].get<int64_t>(),
                    " tensors, ", json["active_parameters"].get<int64_t>(), " for a token"));
  for (const auto& [dtype, bytes] : json["stored_bytes"].items()) {
    line(absl::StrCat("stored ", dtype), HumanBytes(bytes.get<double>()));
  }
  for (const auto& [format, bytes] : json["bytes_by_format"].items()) {
    line(absl::StrCat("loaded as ", format), HumanBytes(bytes.get<double>()));
  }
  for (size_t g = 0; g < json["kv_bf16"].size(); ++g) {
    const Json& group = json["kv_bf16"][g];
    line(absl::StrCat("KV ", group["name"].get<std::string>()),
         absl::StrFormat("%.0f bytes a token in bf16, %.0f in FP8%s",
                         group["bytes_per_token"].get<double>(),
                         json["kv_fp8"][g]["bytes_per_token"].get<double>(),
                         group["window_tokens"].get<int>() > 0 ? ", within its window" : ""));
  }
  PrintMachines(json["machines"]);
}

absl::StatusOr<ModelIdentity> Identify(const absl::StatusOr<Checkpoint>& checkpoint) {
  if (!checkpoint.ok()) return checkpoint.status();
  Checkpoint::Progress progress;
  if (Progress bar = ProgressBar()) {
    progress = [bar](uint64_t done, uint64_t total) {
      bar("reading", static_cast<int64_t>(done), static_cast<int64_t>(total));
    };
  }
  return checkpoint->ComputeIdentity(static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), progress);
}

void Print(const Json& json, const std::string& output, void (*print_text)(const Json&)) {
  if (output == "json") {
    std::cout << json.dump(2) << "\n";
  } else {
    print_text(json);
  }
}

// Weights are not read: a folder that holds no more than configs will do.
absl::StatusOr<Json> InspectRanks(const std::string& folder, const RankQuestion& question) {
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(folder);
  if (!config.ok()) return config.status();
  return DescribeRanks(config->description, question);
}

absl::StatusOr<Json> InspectModel(const std::string& folder) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder);
  absl::StatusOr<ModelIdentity> identity = Identify(checkpoint);
  if (!identity.ok()) return identity.status();
  return Describe(*checkpoint, *identity);
}

WeightBits BitsOf(const std::string& weights) {
  for (const WeightFormat& format : kWeightFormats) {
    if (weights == format.name) return {format.bits_of_matrices, format.bits_of_others};
  }
  return {};
}

}  // namespace

int InspectCommand(int argc, char** argv) {
  std::vector<std::string> folders;
  std::string output = "text";
  std::string weights = "bf16";
  RankQuestion question;
  ProgramConfig program("troupe inspect", "Shows what a model folder holds and needs.");
  program.AddPositional("MODEL", &folders, "Folder of the model.");
  program.Add("ranks", &question.ranks,
              {.help = "Show how the model would be laid out over so many ranks; 0: leave it out.",
               .min = 0});
  program.Add("memory", &question.memory_bytes,
              {.help = "With --ranks: memory of each; 0: not known.", .unit = "bytes", .min = 0});
  program.Add("layout", &question.layout,
              {.help = "With --ranks: this layout, as in \"tp2 dp2 ep\", not the best one."});
  program.Add("weights", &weights,
              {.help = "With --ranks: how weights lie in memory.",
               .choices = {"f32", "bf16", "int8-g64", "int4-g64"}});
  program.Add("output", &output,
              {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program.AddExample("troupe inspect models/abacus");
  program.AddExample("troupe inspect /models/Qwen3-30B-A3B --ranks 2 --memory 141GiB");
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  if (folders.size() != 1) {
    std::cerr << "troupe inspect: found " << folders.size() << " folders, wanted one\n";
    return kExitUsage;
  }
  question.bits = BitsOf(weights);
  const bool ranks = question.ranks > 0;
  const absl::StatusOr<Json> json =
      ranks ? InspectRanks(folders[0], question) : InspectModel(folders[0]);
  if (!json.ok()) {
    std::cerr << "troupe inspect: " << json.status().message() << "\n";
    return kExitFailed;
  }
  Print(*json, output, ranks ? PrintRanks : PrintText);
  return 0;
}

}  // namespace troupe
