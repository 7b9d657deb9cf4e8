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

// How many holders each expert gets.
std::vector<int> CountCopies(absl::Span<const double> loads, int ranks, int redundant) {
  std::vector<int> copies(loads.size(), 1);
  // (tokens of each copy, expert): the most loaded on top, the lower expert among equals.
  using Entry = std::pair<double, int>;
  std::priority_queue<Entry> hottest;
  for (size_t e = 0; e < loads.size(); ++e) hottest.emplace(loads[e], -static_cast<int>(e));
  for (int i = 0; i < redundant && !hottest.empty();) {
    const int expert = -hottest.top().second;
    hottest.pop();
    if (copies[expert] == ranks) continue;
    ++copies[expert];
    ++i;
    hottest.emplace(loads[expert] / copies[expert], -expert);
  }
  return copies;
}

// Copies on ranks, with what each rank computes.
class Packing {
 public:
  Packing(absl::Span<const double> loads, int ranks, int redundant)
      : copies_(CountCopies(loads, ranks, redundant)),
        experts_(ranks),
        rank_load_(ranks, 0.0),
        holders_(loads.size(), std::vector<bool>(ranks, false)) {
    for (size_t e = 0; e < loads.size(); ++e) copy_load_.push_back(loads[e] / copies_[e]);
    const int total = std::accumulate(copies_.begin(), copies_.end(), 0);
    slots_ = static_cast<size_t>((total + ranks - 1) / ranks);
  }

  void PlaceAll() {
    std::vector<int> order(copies_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return copy_load_[a] > copy_load_[b]; });
    for (const int expert : order) {
      for (int i = 0; i < copies_[expert]; ++i) PlaceOne(expert);
    }
  }

  // Exchanges experts between the busiest rank and others while that lowers the busier of the two.
  void Exchange() {
    // Far more than are needed; a bound against loads that differ in the last bits.
    int left = 8 * static_cast<int>(experts_.size());
    while (left-- > 0 && ExchangeOnce()) {
    }
  }

  ExpertPlacement Result() const {
    ExpertPlacement placement;
    placement.holders.resize(holders_.size());
    for (size_t e = 0; e < holders_.size(); ++e) {
      for (size_t r = 0; r < experts_.size(); ++r) {
        if (holders_[e][r]) placement.holders[e].push_back(static_cast<int>(r));
      }
    }
    return placement;
  }

 private:
  bool HasRoom(size_t rank) const { return experts_[rank].size() < slots_; }

  void Put(int expert, size_t rank) {
    experts_[rank].push_back(expert);
    holders_[expert][rank] = true;
    rank_load_[rank] += copy_load_[expert];
  }

  void Take(int expert, size_t rank) {
    std::erase(experts_[rank], expert);
    holders_[expert][rank] = false;
    rank_load_[rank] -= copy_load_[expert];
  }

  void PlaceOne(int expert) {
    int best = -1;
    for (size_t r = 0; r < experts_.size(); ++r) {
      if (!HasRoom(r) || holders_[expert][r]) continue;
      if (best < 0 || rank_load_[r] < rank_load_[best]) best = static_cast<int>(r);
    }
    if (best >= 0) {
      Put(expert, best);
      return;
    }
    // Ranks with room have the expert already. Some rank lacks it, is full, and so has two experts
    // or more that a rank with room lacks: one of them goes there.
    for (size_t from = 0; from < experts_.size(); ++from) {
      if (holders_[expert][from]) continue;
      for (size_t to = 0; to < experts_.size(); ++to) {
        if (!HasRoom(to)) continue;
        const auto movable = std::find_if(experts_[from].begin(), experts_[from].end(),
                                          [&](int e) { return !holders_[e][to]; });
        if (movable == experts_[from].end()) continue;
        const int moved = *movable;
        Take(moved, from);
        Put(moved, to);
        Put(expert, from);
        return;
      }
    }
    CHECK(false) << "no rank for expert " << expert;
  }

  bool ExchangeOnce() {
    const size_t busiest = static_cast<size_t>(
        std::max_element(rank_load_.begin(), rank_load_.end()) - rank_load_.begin());
    double best_peak = rank_load_[busiest] * (1 - 1e-9);
    std::tuple<int, int, size_t> best = {-1, -1, 0};  // given, taken (-1: nothing), rank
    for (size_t r = 0; r < experts_.size(); ++r) {
      if (r == busiest) continue;
      for (const int give : experts_[busiest]) {
        if (holders_[give][r]) continue;
        const auto consider = [&](int take, double taken_load) {
          const double moved = copy_load_[give] - taken_load;
          const double peak = std::max(rank_load_[busiest] - moved, rank_load_[r] + moved);
          if (peak >= best_peak) return;
          best_peak = peak;
          best = {give, take, r};
        };
        if (HasRoom(r)) consider(-1, 0);
        for (const int take : experts_[r]) {
          if (!holders_[take][busiest]) consider(take, copy_load_[take]);
        }
      }
    }
    const auto [give, take, rank] = best;
    if (give < 0) return false;
    Take(give, busiest);
    if (take >= 0) {
      Take(take, rank);
      Put(take, busiest);
    }
    Put(give, rank);
    return true;
  }

  const std::vector<int> copies_;
  size_t slots_ = 0;
  std::vector<double> copy_load_;          // of each copy, by expert
  std::vector<std::vector<int>> experts_;  // by rank
  std::vector<double> rank_load_;
  std::vector<std::vector<bool>> holders_;  // [expert][rank]
};

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

ExpertLoads::ExpertLoads(std::vector<int> experts, double half_life_steps)
    : decay_(std::exp2(-1 / half_life_steps)) {
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
    for (double& tokens : layer) tokens = tokens * decay_ + expert_tokens[at++];
  }
  return absl::OkStatus();
}

ExpertPlacement PlaceExperts(absl::Span<const double> loads, int ranks, int redundant) {
  CHECK(ranks >= 1 && redundant >= 0 && !loads.empty());
  Packing packing(loads, ranks, redundant);
  packing.PlaceAll();
  packing.Exchange();
  return packing.Result();
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

int HolderForRow(const ExpertPlacement& placement, int expert, int64_t row) {
  const std::vector<int>& holders = placement.holders[expert];
  return holders[static_cast<size_t>(row + expert) % holders.size()];
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
    return absl::InvalidArgumentError(absl::StrCat("loads: found ", loads.layers(),
                                                   " layers, wanted ", current.size()));
  }
  std::vector<std::pair<double, LayerMove>> moves;
  for (int layer = 0; layer < loads.layers(); ++layer) {
    const ExpertPlacement& before = current[layer];
    if (before.holders.empty()) continue;
    const absl::Span<const double> tokens = loads.layer(layer);
    if (tokens.size() != before.holders.size()) {
      return absl::InvalidArgumentError(absl::StrCat("loads of layer ", layer, ": found ",
                                                     tokens.size(), " experts, wanted ",
                                                     before.holders.size()));
    }
    LayerMove move;
    move.layer = layer;
    move.placement = KeepInPlace(
        before, PlaceExperts(tokens, ranks, policy.redundant_experts), ranks);
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
