#include "sharding/shard_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_util.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

absl::Status Wrong(absl::string_view what, absl::string_view found, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("shard map: ", what, ": found ", found, ", wanted ", wanted));
}

absl::Status CheckStages(const ModelDescription& model, const ShardMap& map) {
  const std::vector<int>& first = map.first_layer;
  const auto layers = static_cast<int>(model.layers.size());
  const std::string wanted = absl::StrCat(map.layout.pp + 1, " numbers that ascend from 0 to ",
                                          layers, ", a layer at least for each stage");
  const bool ascending =
      std::adjacent_find(first.begin(), first.end(), std::greater_equal<>()) == first.end();
  if (first.size() == static_cast<size_t>(map.layout.pp) + 1 && first.front() == 0 &&
      first.back() == layers && ascending) {
    return absl::OkStatus();
  }
  return Wrong("first_layer", absl::StrCat("[", absl::StrJoin(first, ", "), "]"), wanted);
}

absl::Status CheckHolders(int layer, int expert, const std::vector<int>& holders, int ranks) {
  const bool ascending =
      std::adjacent_find(holders.begin(), holders.end(), std::greater_equal<>()) == holders.end();
  if (!holders.empty() && ascending && holders.front() >= 0 && holders.back() < ranks) {
    return absl::OkStatus();
  }
  return Wrong(absl::StrCat("layer ", layer, ": holders of expert ", expert),
               absl::StrCat("[", absl::StrJoin(holders, ", "), "]"),
               absl::StrCat("one or more of the stage's ", ranks, " ranks, ascending"));
}

absl::Status CheckExperts(const ModelDescription& model, const ShardMap& map) {
  const size_t layers = model.layers.size() + (model.mtp.has_value() ? 1 : 0);
  if (map.experts.size() != layers) {
    return Wrong("experts", absl::StrCat(map.experts.size(), " layers"), absl::StrCat(layers));
  }
  const int ranks = map.layout.tp * map.layout.dp;
  for (size_t i = 0; i < layers; ++i) {
    const auto layer = static_cast<int>(i);
    const auto* moe = std::get_if<MoeFfn>(&LayerOf(model, layer).ffn);
    const auto wanted =
        static_cast<size_t>(moe != nullptr && map.layout.expert_parallel ? moe->experts : 0);
    const std::vector<std::vector<int>>& holders = map.experts[i].holders;
    if (holders.size() != wanted) {
      return Wrong(absl::StrCat("layer ", layer, ": experts that ranks hold whole"),
                   absl::StrCat(holders.size()), absl::StrCat(wanted));
    }
    for (size_t e = 0; e < wanted; ++e) {
      TROUPE_RETURN_IF_ERROR(CheckHolders(layer, static_cast<int>(e), holders[e], ranks));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string NameOf(const Layout& layout) {
  std::string name = absl::StrCat("tp", layout.tp, " dp", layout.dp, " pp", layout.pp);
  if (layout.expert_parallel) absl::StrAppend(&name, " ep");
  if (layout.redundant_experts > 0) absl::StrAppend(&name, " +", layout.redundant_experts);
  return name;
}

RankPlace ShardMap::Place(int rank) const {
  CHECK(rank >= 0 && rank < layout.world()) << rank << " of " << layout.world();
  return {.stage = rank / (layout.tp * layout.dp),
          .dp_index = rank / layout.tp % layout.dp,
          .tp_index = rank % layout.tp};
}

int ShardMap::RankOf(const RankPlace& place) const {
  return (place.stage * layout.dp + place.dp_index) * layout.tp + place.tp_index;
}

int ShardMap::StageRank(int rank) const { return rank % (layout.tp * layout.dp); }

absl::Status ValidateShardMap(const ModelDescription& model, const ShardMap& map) {
  TROUPE_RETURN_IF_ERROR(CheckLayout(model, map.layout));
  TROUPE_RETURN_IF_ERROR(CheckStages(model, map));
  return CheckExperts(model, map);
}

}  // namespace troupe
