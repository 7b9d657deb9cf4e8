// troupe inspect: what a model folder holds and needs.

#include <unistd.h>

#include <iostream>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/terminal.h"
#include "cli/commands.h"
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

Json DescribeGroups(const ModelDescription& model, int kv_bytes_per_element) {
  Json groups = Json::array();
  for (const StateGroup& group :
       StateGroups(model, {.kv_bytes_per_element = kv_bytes_per_element})) {
    groups.push_back({{"name", group.name},
                      {"window_tokens", group.window_tokens},
                      {"page_bytes", group.page_bytes},
                      {"bytes_per_token", BytesPerToken(group)}});
  }
  return groups;
}

// Sequences of the longest context whose KV fits beside the weights in `memory_bytes`.
int64_t SequencesThatFit(const ModelDescription& model, int64_t weight_bytes, int64_t memory_bytes,
                         int kv_bytes_per_element) {
  const int64_t sequence = StateBytes(
      StateGroups(model, {.kv_bytes_per_element = kv_bytes_per_element}), model.max_context_tokens);
  return std::max<int64_t>(0, (memory_bytes - weight_bytes) / std::max<int64_t>(sequence, 1));
}

Json Describe(const Checkpoint& checkpoint, const ModelIdentity& identity) {
  const ModelDescription& model = checkpoint.description();
  const ParameterCounts& parameters = checkpoint.parameters();
  int nsa = 0;
  int moe = 0;
  for (const LayerDescription& layer : model.layers) {
    nsa += layer.attention.kind == AttentionKind::kNsa ? 1 : 0;
    moe += std::holds_alternative<MoeFfn>(layer.ffn) ? 1 : 0;
  }
  Json bytes = Json::object();
  int64_t weight_bytes = 0;
  for (const auto& [dtype, count] : parameters.bytes_by_dtype) {
    bytes[std::string(DTypeName(dtype))] = count;
    weight_bytes += count;
  }
  const int64_t memory_bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  return {
      {"folder", checkpoint.folder()},
      {"architecture", model.architecture},
      {"identity", identity.Hex()},
      {"layers", model.layers.size()},
      {"nsa_layers", nsa},
      {"moe_layers", moe},
      {"early_exits", model.early_exit_layers.size()},
      {"mtp", model.mtp.has_value()},
      {"hidden_size", model.hidden_size},
      {"vocab_size", model.vocab_size},
      {"max_context_tokens", model.max_context_tokens},
      {"tensors", parameters.tensors},
      {"parameters", parameters.total},
      {"active_parameters", parameters.active},
      {"weight_bytes", bytes},
      {"kv_bf16", DescribeGroups(model, 2)},
      {"machine_memory_bytes", memory_bytes},
      {"longest_sequences_that_fit_bf16", SequencesThatFit(model, weight_bytes, memory_bytes, 2)}};
}

void PrintText(const Json& json) {
  auto line = [](absl::string_view name, const std::string& value) {
    std::cout << absl::StrFormat("%-20s %s\n", name, value);
  };
  line("folder", json["folder"]);
  line("architecture", json["architecture"]);
  line("identity", json["identity"]);
  line("layers",
       absl::StrCat(json["layers"].get<int>(), " (", json["nsa_layers"].get<int>(),
                    " with sparse attention, ", json["moe_layers"].get<int>(), " with experts)"));
  line("context", absl::StrCat(json["max_context_tokens"].get<int>(), " tokens"));
  line("parameters",
       absl::StrCat(json["parameters"].get<int64_t>(), " in ", json["tensors"].get<int64_t>(),
                    " tensors, ", json["active_parameters"].get<int64_t>(), " for a token"));
  for (const auto& [dtype, bytes] : json["weight_bytes"].items()) {
    line(absl::StrCat("weights ", dtype), HumanBytes(bytes.get<double>()));
  }
  for (const Json& group : json["kv_bf16"]) {
    line(absl::StrCat("KV ", group["name"].get<std::string>()),
         absl::StrFormat("%.0f bytes a token in bf16%s", group["bytes_per_token"].get<double>(),
                         group["window_tokens"].get<int>() > 0 ? ", within its window" : ""));
  }
  line("fits here", absl::StrFormat("%d sequences of the longest context beside the weights, in %s",
                                    json["longest_sequences_that_fit_bf16"].get<int64_t>(),
                                    HumanBytes(json["machine_memory_bytes"].get<double>())));
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

}  // namespace

int InspectCommand(int argc, char** argv) {
  std::vector<std::string> folders;
  std::string output = "text";
  ProgramConfig program("troupe inspect", "Shows what a model folder holds and needs.");
  program.AddPositional("MODEL", &folders, "Folder of the model.");
  program.Add("output", &output,
              {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program.AddExample("troupe inspect models/abacus");
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  if (folders.size() != 1) {
    std::cerr << "troupe inspect: found " << folders.size() << " folders, wanted one\n";
    return kExitUsage;
  }
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folders[0]);
  absl::StatusOr<ModelIdentity> identity = Identify(checkpoint);
  if (!identity.ok()) {
    std::cerr << "troupe inspect: " << identity.status().message() << "\n";
    return kExitFailed;
  }
  const Json json = Describe(*checkpoint, *identity);
  if (output == "json") {
    std::cout << json.dump(2) << "\n";
  } else {
    PrintText(json);
  }
  return 0;
}

}  // namespace troupe
