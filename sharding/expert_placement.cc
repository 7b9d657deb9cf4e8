#include "sharding/expert_placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace troupe {
namespace {

// Copies on ranks, with what each rank computes.
class Packing {
 public:
  Packing(absl::Span<const double> loads, const ExpertPlacement& placement, int ranks)
      : experts_(ranks), rank_load_(ranks, 0.0), placement_(placement) {
    for (size_t e = 0; e < loads.size(); ++e) {
      const std::vector<int>& holders = placement.holders[e];
      copy_load_.push_back(loads[e] / static_cast<double>(holders.size()));
      for (const int rank : holders) {
        experts_[rank].push_back(static_cast<int>(e));
        rank_load_[rank] += copy_load_[e];
      }
    }
  }

  // Exchanges experts between the busiest rank and others while that lowers the busier of the two.
  void Exchange() {
    // Far more than are needed; a bound against loads that differ in the last bits.
    int left = 8 * static_cast<int>(experts_.size());
    while (left-- > 0 && ExchangeOnce()) {
    }
  }

  const ExpertPlacement& placement() const { return placement_; }

 private:
  bool Holds(size_t rank, int expert) const {
    const std::vector<int>& holders = placement_.holders[expert];
    return std::binary_search(holders.begin(), holders.end(), static_cast<int>(rank));
  }

  void Move(int expert, size_t from, size_t to) {
    std::erase(experts_[from], expert);
    experts_[to].push_back(expert);
    rank_load_[from] -= copy_load_[expert];
    rank_load_[to] += copy_load_[expert];
    std::vector<int>& holders = placement_.holders[expert];
    std::replace(holders.begin(), holders.end(), static_cast<int>(from), static_cast<int>(to));
    std::sort(holders.begin(), holders.end());
  }

  bool ExchangeOnce() {
    const size_t busiest = static_cast<size_t>(
        std::max_element(rank_load_.begin(), rank_load_.end()) - rank_load_.begin());
    double best_peak = rank_load_[busiest] * (1 - 1e-9);
    std::tuple<int, int, size_t> best = {-1, -1, 0};  // given, taken, rank
    for (size_t r = 0; r < experts_.size(); ++r) {
      if (r == busiest) continue;
      for (const int give : experts_[busiest]) {
        if (Holds(r, give)) continue;
        for (const int take : experts_[r]) {
          if (Holds(busiest, take)) continue;
          const double moved = copy_load_[give] - copy_load_[take];
          const double peak = std::max(rank_load_[busiest] - moved, rank_load_[r] + moved);
          if (peak >= best_peak) continue;
          best_peak = peak;
          best = {give, take, r};
        }
      }
    }
    const auto [give, take, rank] = best;
    if (give < 0) return false;
    Move(give, busiest, rank);
    Move(take, rank, busiest);
    return true;
  }

  std::vector<double> copy_load_;          // of each copy, by expert
  std::vector<std::vector<int>> experts_;  // by rank
  std::vector<double> rank_load_;
  ExpertPlacement placement_;
};

// Copies of each expert so that the largest load of a copy is as small as can be.
std::vector<int> CopiesOf(absl::Span<const double> loads, int ranks, int redundant) {
  const auto experts = static_cast<int>(loads.size());
  std::vector<int> copies(experts, 1);
  // The expert whose copies carry most is on top; among equals the lower index.
  std::priority_queue<std::pair<double, int>> shares;
  for (int e = 0; e < experts; ++e) shares.emplace(loads[e], -e);
  for (int i = 0; i < redundant;) {
    CHECK(!shares.empty()) << redundant << " copies of " << experts << " experts on " << ranks;
    const int e = -shares.top().second;
    shares.pop();
    if (copies[e] == ranks) continue;
    ++copies[e];
    ++i;
    shares.emplace(loads[e] / copies[e], -e);
  }
  return copies;
}

// What lies on the ranks of a stage so far.
class Fill {
 public:
  Fill(int ranks, int copies)
      : even_(copies / ranks), more_(copies % ranks), held_(ranks, 0), load_(ranks, 0) {}

  // The best ranks for an expert of `copies` copies of `share` tokens each, ascending. Where one
  // must find several ranks, even numbers go before even loads: otherwise the last would not find
  // enough.
  std::vector<int> Take(int copies, double share) {
    using Key = std::tuple<bool, int, double, int, int>;
    std::vector<Key> keys;
    keys.reserve(held_.size());
    for (int r = 0; r < static_cast<int>(held_.size()); ++r) {
      keys.emplace_back(!HasRoom(r), copies > 1 ? held_[r] : 0, load_[r], held_[r], r);
    }
    std::partial_sort(keys.begin(), keys.begin() + copies, keys.end());
    std::vector<int> best;
    for (int i = 0; i < copies; ++i) best.push_back(std::get<4>(keys[i]));
    std::sort(best.begin(), best.end());
    for (const int rank : best) {
      if (++held_[rank] == even_ + 1) --more_;
      load_[rank] += share;
    }
    return best;
  }

 private:
  bool HasRoom(int rank) const {
    return held_[rank] < even_ || (held_[rank] == even_ && more_ > 0);
  }

  const int even_;  // copies that every rank holds in the end
  int more_;        // ranks that may hold one more
  std::vector<int> held_;
  std::vector<double> load_;
};

ExpertPlacement Spread(absl::Span<const double> loads, int ranks, int redundant) {
  const auto experts = static_cast<int>(loads.size());
  const std::vector<int> copies = CopiesOf(loads, ranks, redundant);
  const auto share = [&](int e) { return loads[e] / copies[e]; };
  std::vector<int> order(experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(copies[a], share(a)) > std::pair(copies[b], share(b));
  });
  Fill fill(ranks, experts + redundant);
  ExpertPlacement placement;
  placement.holders.resize(experts);
  for (const int e : order) placement.holders[e] = fill.Take(copies[e], share(e));
  return placement;
}

std::vector<ExpertCopy> CopiesBetween(const ExpertPlacement& from, const ExpertPlacement& to) {
  std::vector<ExpertCopy> copies;
  for (size_t e = 0; e < to.holders.size(); ++e) {
    const std::vector<int>& sources = from.holders[e];
    size_t next = e;
    for (const int rank : to.holders[e]) {
      if (std::binary_search(sources.begin(), sources.end(), rank)) continue;
      copies.push_back({static_cast<int>(e), rank, sources[next++ % sources.size()]});
    }
  }
  std::sort(copies.begin(), copies.end(), [](const ExpertCopy& a, const ExpertCopy& b) {
    return std::tie(a.to_rank, a.expert) < std::tie(b.to_rank, b.expert);
  });
  return copies;
}

}  // namespace

ExpertLoads::ExpertLoads(std::vector<int> experts, double half_life)
    : decay_(std::exp2(-1 / half_life)) {
  for (const int count : experts) tokens_.emplace_back(count, 0.0);
}

absl::Status ExpertLoads::Add(absl::Span<const uint32_t> expert_tokens) {
  size_t wanted = 0;
  for (const std::vector<double>& layer : tokens_) wanted += layer.size();
  if (expert_tokens.size() != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("expert_tokens: found ", expert_tokens.size(),
                                                   " values, wanted ", wanted,
                                                   ", one for each expert of each MoE layer"));
  }
  size_t at = 0;
  for (std::vector<double>& layer : tokens_) {
    for (double& tokens : layer) {
      empty_ = empty_ && expert_tokens[at] == 0;
      tokens = tokens * decay_ + expert_tokens[at++];
    }
  }
  return absl::OkStatus();
}

ExpertLoads LoadsOf(const ModelDescription& model) {
  std::vector<int> experts;
  for (const LayerDescription& layer : model.layers) {
    const auto* moe = std::get_if<MoeFfn>(&layer.ffn);
    experts.push_back(moe == nullptr ? 0 : moe->experts);
  }
  if (model.mtp.has_value()) experts.push_back(0);
  return {std::move(experts), kLoadHalfLife};
}

ExpertLoads LoadsOf(absl::Span<const ExpertPlacement> placements, size_t values) {
  std::vector<int> experts;
  for (const ExpertPlacement& placement : placements) {
    const size_t count = std::min(values, placement.holders.size());
    experts.push_back(static_cast<int>(count));
    values -= count;
  }
  return {std::move(experts), kLoadHalfLife};
}

ExpertPlacement PlaceExperts(absl::Span<const double> loads, int ranks, int redundant) {
  CHECK(ranks >= 1 && redundant >= 0 && !loads.empty());
  const int64_t most = static_cast<int64_t>(loads.size()) * (ranks - 1);
  Packing packing(loads, Spread(loads, ranks, static_cast<int>(std::min<int64_t>(redundant, most))),
                  ranks);
  packing.Exchange();
  return packing.placement();
}

int HolderFor(const ExpertPlacement& placement, int expert, int position) {
  const std::vector<int>& holders = placement.holders[expert];
  return holders[static_cast<size_t>(position) % holders.size()];
}

std::vector<double> RankLoads(absl::Span<const double> loads, const ExpertPlacement& placement,
                              int ranks) {
  std::vector<double> of_rank(ranks, 0.0);
  for (size_t e = 0; e < loads.size(); ++e) {
    const std::vector<int>& holders = placement.holders[e];
    for (const int rank : holders) of_rank[rank] += loads[e] / static_cast<double>(holders.size());
  }
  return of_rank;
}

double PlacementBalance(absl::Span<const double> loads, const ExpertPlacement& placement,
                        int ranks) {
  const std::vector<double> of_rank = RankLoads(loads, placement, ranks);
  const double total = std::accumulate(of_rank.begin(), of_rank.end(), 0.0);
  if (total <= 0) return 1;
  return *std::max_element(of_rank.begin(), of_rank.end()) * ranks / total;
}

StageBalance BalanceOf(const ExpertLoads& loads, absl::Span<const ExpertPlacement> placements,
                       int ranks) {
  StageBalance balance;
  double sum = 0;
  int layers = 0;
  for (int layer = 0; layer < loads.layers(); ++layer) {
    const absl::Span<const double> tokens = loads.layer(layer);
    if (placements[layer].holders.empty() || tokens.empty()) continue;
    if (std::accumulate(tokens.begin(), tokens.end(), 0.0) <= 0) continue;
    const double of_layer = PlacementBalance(tokens, placements[layer], ranks);
    sum += of_layer;
    ++layers;
    if (balance.worst_layer >= 0 && of_layer <= balance.worst) continue;
    balance.worst = of_layer;
    balance.worst_layer = layer;
  }
  if (layers > 0) balance.mean = sum / layers;
  return balance;
}

ExpertPlacement KeepInPlace(const ExpertPlacement& current, const ExpertPlacement& placement,
                            int ranks) {
  // common[n * ranks + o]: experts that new rank n and old rank o share.
  std::vector<int> common(static_cast<size_t>(ranks) * ranks, 0);
  for (size_t e = 0; e < placement.holders.size(); ++e) {
    for (const int n : placement.holders[e]) {
      for (const int o : current.holders[e]) ++common[static_cast<size_t>(n) * ranks + o];
    }
  }
  std::vector<std::pair<int, size_t>> pairs;  // (-common, index)
  for (size_t i = 0; i < common.size(); ++i) {
    if (common[i] > 0) pairs.emplace_back(-common[i], i);
  }
  std::sort(pairs.begin(), pairs.end());
  std::vector<int> name(ranks, -1);
  std::vector<bool> used(ranks, false);
  for (const auto& [shared, index] : pairs) {
    const int n = static_cast<int>(index) / ranks;
    const int o = static_cast<int>(index) % ranks;
    if (name[n] >= 0 || used[o]) continue;
    name[n] = o;
    used[o] = true;
  }
  int free_name = 0;
  for (int& n : name) {
    if (n >= 0) continue;
    while (used[free_name]) ++free_name;
    n = free_name++;
  }
  ExpertPlacement renamed = placement;
  for (std::vector<int>& holders : renamed.holders) {
    for (int& rank : holders) rank = name[rank];
    std::sort(holders.begin(), holders.end());
  }
  return renamed;
}

absl::StatusOr<std::vector<LayerMove>> PlanPlacement(const ExpertLoads& loads,
                                                     absl::Span<const ExpertPlacement> current,
                                                     int ranks, const PlacementPolicy& policy) {
  if (loads.layers() != static_cast<int>(current.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("loads: found ", loads.layers(), " layers, wanted ", current.size()));
  }
  std::vector<std::pair<double, LayerMove>> moves;
  for (int layer = 0; layer < loads.layers(); ++layer) {
    const ExpertPlacement& before = current[layer];
    const absl::Span<const double> tokens = loads.layer(layer);
    if (before.holders.empty() || tokens.empty()) continue;
    if (tokens.size() != before.holders.size()) {
      return absl::InvalidArgumentError(absl::StrCat("loads of layer ", layer, ": found ",
                                                     tokens.size(), " experts, wanted ",
                                                     before.holders.size()));
    }
    LayerMove move;
    move.layer = layer;
    move.placement =
        KeepInPlace(before, PlaceExperts(tokens, ranks, policy.redundant_experts), ranks);
    move.balance_before = PlacementBalance(tokens, before, ranks);
    move.balance_after = PlacementBalance(tokens, move.placement, ranks);
    if (move.balance_before - move.balance_after < policy.min_gain) continue;
    move.copies = CopiesBetween(before, move.placement);
    const double mean = std::accumulate(tokens.begin(), tokens.end(), 0.0) / ranks;
    const double gain = (move.balance_before - move.balance_after) * mean;
    moves.emplace_back(gain / std::max<double>(1, static_cast<double>(move.copies.size())),
                       std::move(move));
  }
  std::stable_sort(moves.begin(), moves.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<LayerMove> ordered;
  for (auto& [gain, move] : moves) ordered.push_back(std::move(move));
  return ordered;
}

}  // namespace troupe
