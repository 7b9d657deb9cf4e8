#include "sharding/survivor_layout.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

int StageOfLayer(const ShardMap& map, int layer) {
  // The MTP module lies behind the last layer, on the last stage.
  for (int s = 0; s < map.layout.pp; ++s) {
    if (layer < map.first_layer[s + 1]) return s;
  }
  return map.layout.pp - 1;
}

// One layer's experts on the ranks of a stage.
class Carrier {
 public:
  Carrier(size_t experts, int ranks, int copies)
      : held_(ranks, 0), most_((copies + ranks - 1) / ranks) {
    placement_.holders.resize(experts);
  }

  void Add(int expert, int rank) {
    std::vector<int>& holders = placement_.holders[expert];
    const auto at = std::lower_bound(holders.begin(), holders.end(), rank);
    if (at != holders.end() && *at == rank) return;
    holders.insert(at, rank);
    ++held_[rank];
  }

  void AddLost() {
    for (size_t e = 0; e < placement_.holders.size(); ++e) {
      if (!placement_.holders[e].empty()) continue;
      Add(static_cast<int>(e),
          static_cast<int>(std::min_element(held_.begin(), held_.end()) - held_.begin()));
    }
  }

  // Spare copies go first: nothing has to be loaded for that.
  void DropSpares() {
    for (size_t e = 0; e < placement_.holders.size(); ++e) {
      while (placement_.holders[e].size() > 1) {
        std::vector<int>& holders = placement_.holders[e];
        const auto fullest = std::max_element(holders.begin(), holders.end(),
                                              [&](int a, int b) { return held_[a] < held_[b]; });
        if (held_[*fullest] <= most_) break;
        --held_[*fullest];
        holders.erase(fullest);
      }
    }
  }

  void EvenOut() {
    for (size_t e = 0; e < placement_.holders.size(); ++e) {
      const std::vector<int> holders = placement_.holders[e];
      for (const int from : holders) {
        if (held_[from] <= most_) continue;
        const auto to =
            static_cast<int>(std::min_element(held_.begin(), held_.end()) - held_.begin());
        if (held_[to] >= most_ || std::find(holders.begin(), holders.end(), to) != holders.end()) {
          continue;
        }
        std::erase(placement_.holders[e], from);
        --held_[from];
        Add(static_cast<int>(e), to);
      }
    }
  }

  ExpertPlacement Take() { return std::move(placement_); }

 private:
  ExpertPlacement placement_;
  std::vector<int> held_;
  const int most_;
};

// Machines in the order of ranks: those whose tensor-parallel group is whole before others, so that
// whole groups stay groups; then spares.
std::vector<std::string> OrderMachines(const ShardMap& from, absl::Span<const std::string> members,
                                       const std::vector<bool>& alive,
                                       absl::Span<const std::string> spares, bool same_tp) {
  const int tp = from.layout.tp;
  const auto group_alive = [&](int rank) {
    const int first = rank / tp * tp;
    return std::all_of(alive.begin() + first, alive.begin() + first + tp, [](bool a) { return a; });
  };
  std::vector<std::string> whole;
  std::vector<std::string> rest;
  for (int r = 0; r < static_cast<int>(members.size()); ++r) {
    if (alive[r]) (!same_tp || group_alive(r) ? whole : rest).push_back(members[r]);
  }
  whole.insert(whole.end(), rest.begin(), rest.end());
  whole.insert(whole.end(), spares.begin(), spares.end());
  return whole;
}

// Layouts to be tried, best first.
std::vector<Layout> Candidates(const Layout& old, int machines) {
  std::vector<Layout> layouts;
  for (int tp = 1; tp <= machines; ++tp) {
    for (int pp = 1; tp * pp <= machines; ++pp) {
      // Powers of two and the old sizes: others divide no model's heads.
      if ((tp & (tp - 1)) != 0 && tp != old.tp) continue;
      if ((pp & (pp - 1)) != 0 && pp != old.pp) continue;
      for (const bool ep : {old.expert_parallel, !old.expert_parallel}) {
        Layout layout = old;
        layout.tp = tp;
        layout.pp = pp;
        layout.dp = machines / (tp * pp);
        layout.expert_parallel = ep;
        if (!ep) layout.redundant_experts = 0;
        layouts.push_back(layout);
      }
    }
  }
  const auto rank = [&](const Layout& l) {
    return std::tuple(-l.world(), l.tp != old.tp || l.pp != old.pp, l.tp != old.tp,
                      l.expert_parallel != old.expert_parallel, l.pp, l.tp);
  };
  std::stable_sort(layouts.begin(), layouts.end(),
                   [&](const Layout& a, const Layout& b) { return rank(a) < rank(b); });
  return layouts;
}

}  // namespace

ShardMap CarryExperts(const ShardMap& from, const ShardMap& to, const RankMatch& match) {
  ShardMap carried = to;
  if (!from.layout.expert_parallel || !to.layout.expert_parallel) return carried;
  const int ranks = to.layout.tp * to.layout.dp;
  for (size_t layer = 0; layer < to.experts.size(); ++layer) {
    const ExpertPlacement& before = from.experts[layer];
    const ExpertPlacement& fresh = to.experts[layer];
    if (before.holders.empty() || fresh.holders.empty()) continue;
    size_t copies = 0;
    for (const std::vector<int>& holders : fresh.holders) copies += holders.size();
    Carrier carrier(fresh.holders.size(), ranks, static_cast<int>(copies));
    const int old_stage = StageOfLayer(from, static_cast<int>(layer));
    const int new_stage = StageOfLayer(to, static_cast<int>(layer));
    // Of the stage's new ranks: what they were, in the old stage.
    for (int r = 0; r < ranks; ++r) {
      const int old_rank = match.old_of_new[new_stage * ranks + r];
      if (old_rank == kNoRank || from.Place(old_rank).stage != old_stage) continue;
      const int old_stage_rank = from.StageRank(old_rank);
      for (size_t e = 0; e < before.holders.size(); ++e) {
        const std::vector<int>& holders = before.holders[e];
        if (std::binary_search(holders.begin(), holders.end(), old_stage_rank)) {
          carrier.Add(static_cast<int>(e), r);
        }
      }
    }
    carrier.AddLost();
    carrier.DropSpares();
    carrier.EvenOut();
    carried.experts[layer] = carrier.Take();
  }
  return carried;
}

absl::StatusOr<SurvivorChoice> ChooseSurvivors(const ModelDescription& model, const ShardMap& from,
                                               absl::Span<const std::string> members,
                                               const std::vector<bool>& alive,
                                               absl::Span<const std::string> spares,
                                               const Sizing& sizing) {
  CHECK_EQ(members.size(), static_cast<size_t>(from.layout.world()));
  CHECK_EQ(alive.size(), members.size());
  const auto machines =
      static_cast<int>(std::count(alive.begin(), alive.end(), true) + spares.size());
  absl::Status last = absl::ResourceExhaustedError("found no rank, wanted one at least");
  for (const Layout& layout : Candidates(from.layout, machines)) {
    absl::StatusOr<ShardMap> map = BuildShardMap(model, layout, 0);
    if (!map.ok()) continue;
    const bool same_tp = layout.tp == from.layout.tp && layout.pp == from.layout.pp;
    std::vector<std::string> names = OrderMachines(from, members, alive, spares, same_tp);
    names.resize(layout.world());
    *map = CarryExperts(from, *map, MatchRanks(members, names, alive));
    last = CheckFits(model, *map, sizing);
    if (last.ok()) return SurvivorChoice{*std::move(map), std::move(names)};
  }
  return Annotate(last, absl::StrCat(machines, " ranks are left of ", NameOf(from.layout)));
}

}  // namespace troupe
