#include "coordinator/reshard/map_proto.h"

namespace troupe {

v1::Layout ToProto(const Layout& layout) {
  v1::Layout out;
  out.set_tp(layout.tp);
  out.set_dp(layout.dp);
  out.set_pp(layout.pp);
  out.set_expert_parallel(layout.expert_parallel);
  out.set_redundant_experts(layout.redundant_experts);
  return out;
}

Layout FromProto(const v1::Layout& layout) {
  return {.tp = static_cast<int>(layout.tp()),
          .dp = static_cast<int>(layout.dp()),
          .pp = static_cast<int>(layout.pp()),
          .expert_parallel = layout.expert_parallel(),
          .redundant_experts = static_cast<int>(layout.redundant_experts())};
}

v1::ShardMap ToProto(const ShardMap& map, absl::Span<const v1::RankMember> members) {
  v1::ShardMap out;
  out.set_epoch(map.epoch);
  *out.mutable_layout() = ToProto(map.layout);
  for (const int layer : map.first_layer) out.add_first_layer(layer);
  for (const ExpertPlacement& placement : map.experts) {
    v1::ExpertHolders& layer = *out.add_layers();
    for (const std::vector<int>& holders : placement.holders) {
      layer.add_experts()->mutable_ranks()->Assign(holders.begin(), holders.end());
    }
  }
  for (const v1::RankMember& member : members) *out.add_members() = member;
  return out;
}

ShardMap FromProto(const v1::ShardMap& map) {
  ShardMap out;
  out.epoch = map.epoch();
  out.layout = FromProto(map.layout());
  out.first_layer.assign(map.first_layer().begin(), map.first_layer().end());
  for (const v1::ExpertHolders& layer : map.layers()) {
    ExpertPlacement& placement = out.experts.emplace_back();
    for (const v1::ExpertHolders::Ranks& holders : layer.experts()) {
      placement.holders.emplace_back(holders.ranks().begin(), holders.ranks().end());
    }
  }
  return out;
}

}  // namespace troupe
