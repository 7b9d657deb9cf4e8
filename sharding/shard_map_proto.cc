#include "sharding/shard_map_proto.h"

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// More than any cluster has; keeps products of sizes from wrapping.
constexpr uint32_t kMostRanks = 1 << 16;

}  // namespace

v1::ShardMap ToProto(const ShardMap& map) {
  v1::ShardMap out;
  out.set_epoch(map.epoch);
  out.mutable_layout()->set_tp(map.layout.tp);
  out.mutable_layout()->set_dp(map.layout.dp);
  out.mutable_layout()->set_pp(map.layout.pp);
  out.mutable_layout()->set_expert_parallel(map.layout.expert_parallel);
  out.mutable_layout()->set_redundant_experts(map.layout.redundant_experts);
  out.mutable_first_layer()->Add(map.first_layer.begin(), map.first_layer.end());
  for (const ExpertPlacement& layer : map.experts) {
    v1::ExpertHolders& holders = *out.add_layers();
    for (const std::vector<int>& ranks : layer.holders) {
      holders.add_experts()->mutable_ranks()->Add(ranks.begin(), ranks.end());
    }
  }
  return out;
}

absl::StatusOr<ShardMap> FromProto(const v1::ShardMap& map) {
  const v1::Layout& layout = map.layout();
  for (const uint32_t size : {layout.tp(), layout.dp(), layout.pp()}) {
    if (size == 0 || size > kMostRanks) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard map: found a layout of tp ", layout.tp(), " dp ", layout.dp(), " pp ",
                       layout.pp(), ", wanted each 1 to ", kMostRanks));
    }
  }
  if (uint64_t{layout.tp()} * layout.dp() * layout.pp() > kMostRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard map: found ", uint64_t{layout.tp()} * layout.dp() * layout.pp(),
                     " ranks, wanted at most ", kMostRanks));
  }
  ShardMap out;
  out.epoch = map.epoch();
  out.layout.tp = static_cast<int>(layout.tp());
  out.layout.dp = static_cast<int>(layout.dp());
  out.layout.pp = static_cast<int>(layout.pp());
  out.layout.expert_parallel = layout.expert_parallel();
  out.layout.redundant_experts = static_cast<int>(layout.redundant_experts());
  out.first_layer.assign(map.first_layer().begin(), map.first_layer().end());
  for (const v1::ExpertHolders& layer : map.layers()) {
    ExpertPlacement& placement = out.experts.emplace_back();
    for (const v1::ExpertHolders::Ranks& ranks : layer.experts()) {
      placement.holders.emplace_back(ranks.ranks().begin(), ranks.ranks().end());
    }
  }
  return out;
}

v1::WeightPiece ToProto(const WeightPiece& piece) {
  v1::WeightPiece out;
  out.set_role(static_cast<uint32_t>(piece.role));
  out.set_layer(piece.layer);
  out.set_expert(piece.expert);
  out.set_begin(piece.extent.begin);
  out.set_size(piece.extent.size);
  out.set_of(piece.extent.of);
  out.set_digest(piece.digest);
  return out;
}

absl::StatusOr<WeightPiece> FromProto(const v1::WeightPiece& piece) {
  constexpr auto kMost = static_cast<uint32_t>(WeightRole::kExpert);
  if (piece.role() > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("piece of weights: found role ", piece.role(), ", wanted at most ", kMost));
  }
  return WeightPiece{
      .role = static_cast<WeightRole>(piece.role()),
      .layer = piece.layer(),
      .expert = piece.expert(),
      .extent = {static_cast<int64_t>(piece.begin()), static_cast<int64_t>(piece.size()),
                 static_cast<int64_t>(piece.of())},
      .digest = piece.digest()};
}

}  // namespace troupe
