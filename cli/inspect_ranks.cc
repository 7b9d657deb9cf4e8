#include "cli/inspect_ranks.h"

#include <iostream>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_util.h"
#include "base/terminal.h"
#include "sharding/layout_plan.h"
#include "sharding/layout_rules.h"
#include "sharding/rank_shard.h"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<LayoutWish> WishOf(const RankQuestion& question) {
  LayoutWish wish{.ranks = question.ranks};
  if (question.layout.empty()) return wish;
  TROUPE_ASSIGN_OR_RETURN(const Layout layout, ParseLayout(question.layout));
  if (layout.world() != question.ranks) {
    return absl::InvalidArgumentError(absl::StrCat("layout ", NameOf(layout), ": found ",
                                                   layout.world(),
                                                   " ranks, wanted --ranks = ", question.ranks));
  }
  wish.tp = layout.tp;
  wish.dp = layout.dp;
  wish.pp = layout.pp;
  wish.expert_parallel = layout.expert_parallel;
  wish.redundant_experts = layout.redundant_experts;
  return wish;
}

Json DescribeBytes(const RankBytes& bytes) {
  return {{"weight_bytes", bytes.weights},
          {"activation_bytes", bytes.activations},
          {"kv_bytes_per_token", bytes.kv_per_token},
          {"kv_bytes_longest", bytes.kv_longest}};
}

Json DescribeRank(const ModelDescription& model, const ShardMap& map, int rank,
                  const Sizing& sizing) {
  const RankShard shard = ShardOf(model, map, rank);
  size_t experts = 0;
  for (const std::vector<int>& held : shard.experts) experts = std::max(experts, held.size());
  const LayerDescription& layer = shard.description.layers[shard.first_layer];
  Json json = {{"rank", rank},
               {"stage", shard.place.stage},
               {"home", shard.place.dp_index},
               {"part", shard.place.tp_index},
               {"first_layer", shard.first_layer},
               {"last_layer", shard.end_layer - 1},
               {"heads", layer.attention.heads},
               {"kv_heads", layer.attention.kv_heads},
               {"experts_a_layer", experts}};
  json.update(DescribeBytes(BytesOfRank(model, map, rank, sizing)));
  return json;
}

Json DescribeCandidate(const LayoutCandidate& candidate, bool memory_known) {
  Json json = {{"layout", NameOf(candidate.layout)}};
  if (!candidate.status.ok()) {
    json["why_not"] = std::string(candidate.status.message());
    return json;
  }
  json.update(DescribeBytes(candidate.fullest));
  if (memory_known) json["longest_sequences"] = candidate.longest_fit;
  json["read_ms"] = candidate.cost.read_s * 1e3;
  json["exchange_ms"] = candidate.cost.exchange_s * 1e3;
  return json;
}

std::string RankLine(const Json& rank) {
  std::string line =
      absl::StrFormat("stage %d, home %d, part %d: layers %d to %d, %d heads over %d KV heads",
                      rank["stage"].get<int>(), rank["home"].get<int>(), rank["part"].get<int>(),
                      rank["first_layer"].get<int>(), rank["last_layer"].get<int>(),
                      rank["heads"].get<int>(), rank["kv_heads"].get<int>());
  if (const int experts = rank["experts_a_layer"].get<int>(); experts > 0) {
    absl::StrAppend(&line, ", ", experts, " experts a layer");
  }
  absl::StrAppend(&line, "; weights ", HumanBytes(rank["weight_bytes"].get<double>()),
                  ", activations ", HumanBytes(rank["activation_bytes"].get<double>()), ", KV ",
                  rank["kv_bytes_per_token"].get<int64_t>(), " bytes a token");
  return line;
}

}  // namespace

absl::StatusOr<Json> DescribeRanks(const ModelDescription& model, const RankQuestion& question) {
  TROUPE_ASSIGN_OR_RETURN(const LayoutWish wish, WishOf(question));
  const Sizing sizing{.bits = question.bits, .memory_bytes = question.memory_bytes};
  TROUPE_ASSIGN_OR_RETURN(const LayoutChoice choice,
                          ChooseLayout(model, wish, sizing, MachineRates()));
  Json ranks = Json::array();
  for (int rank = 0; rank < question.ranks; ++rank) {
    ranks.push_back(DescribeRank(model, choice.map, rank, sizing));
  }
  Json candidates = Json::array();
  for (const LayoutCandidate& candidate : choice.candidates) {
    candidates.push_back(DescribeCandidate(candidate, question.memory_bytes > 0));
  }
  return Json{{"layout", NameOf(choice.map.layout)},
              {"sequences", kPlannedSequences},
              {"context_tokens", kPlannedContext},
              {"ranks", std::move(ranks)},
              {"candidates", std::move(candidates)}};
}

void PrintRanks(const Json& ranks) {
  std::cout << absl::StrFormat("%-20s %s\n", "layout", ranks["layout"].get<std::string>());
  for (const Json& rank : ranks["ranks"]) {
    std::cout << absl::StrFormat("%-20s %s\n", absl::StrCat("rank ", rank["rank"].get<int>()),
                                 RankLine(rank));
  }
  std::cout << absl::StrFormat(
      "\nwhat a decode step of %d sequences of %d tokens is estimated to cost the slowest rank\n"
      "%-20s%12s%16s%16s%14s%10s\n",
      ranks["sequences"].get<int>(), ranks["context_tokens"].get<int>(), "", "weights",
      "KV of a token", "longest fit", "exchange", "step");
  for (const Json& candidate : ranks["candidates"]) {
    const std::string name = candidate["layout"];
    if (candidate.contains("why_not")) {
      std::cout << absl::StrFormat("%-20s   %s\n", name, candidate["why_not"].get<std::string>());
      continue;
    }
    const double exchange = candidate["exchange_ms"];
    const double step = exchange + candidate["read_ms"].get<double>();
    const std::string fit = candidate.contains("longest_sequences")
                                ? absl::StrCat(candidate["longest_sequences"].get<int64_t>())
                                : "";
    std::cout << absl::StrFormat("%-20s%12s%16s%16s%11.2f ms%7.2f ms\n", name,
                                 HumanBytes(candidate["weight_bytes"].get<double>()),
                                 HumanBytes(candidate["kv_bytes_per_token"].get<double>()), fit,
                                 exchange, step);
  }
}

}  // namespace troupe
