#include "sharding/reshard_kv.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "sharding/rank_shard.h"

namespace troupe {
namespace {

// The KV of one layer on one rank: heads [first, first + count).
struct Held {
  int first = 0;
  int count = 0;
  bool operator==(const Held&) const = default;
};

// By layer; none for layers of other stages.
std::vector<Held> HeldBy(const ModelDescription& model, const ShardMap& map, int rank) {
  const RankPlace place = map.Place(rank);
  std::vector<Held> held(model.layers.size());
  for (int l = map.first_layer[place.stage]; l < map.first_layer[place.stage + 1]; ++l) {
    const AttentionDescription& attention = model.layers[l].attention;
    if (attention.mla.has_value()) {
      held[l] = {0, 1};  // the latent, whole on every rank
      continue;
    }
    const KvHeads heads = KvHeadsOf(attention, {place.tp_index, map.layout.tp});
    held[l] = {heads.first, heads.count};
  }
  return held;
}

// One rank of a home, with what it keeps.
struct HomeRank {
  int rank = 0;
  std::vector<Held> held;
  int64_t kv_per_token = 0;
};

// By home.
std::vector<std::vector<HomeRank>> Homes(const ModelDescription& model, const ShardMap& map,
                                         const Sizing& sizing) {
  std::vector<std::vector<HomeRank>> homes(map.layout.dp);
  for (int r = 0; r < map.layout.world(); ++r) {
    homes[map.Place(r).dp_index].push_back(
        {r, HeldBy(model, map, r), BytesOfRank(model, map, r, sizing).kv_per_token});
  }
  return homes;
}

// What a move from one home to another comes to, for a token.
struct HomeMove {
  bool keeps = false;
  bool possible = false;
  int64_t bytes_per_token = 0;
};

HomeMove MoveBetween(const std::vector<HomeRank>& from, const std::vector<HomeRank>& to,
                     const RankMatch& match) {
  const auto has_head = [&](size_t layer, int head) {
    return std::any_of(from.begin(), from.end(), [&](const HomeRank& old) {
      const Held& held = old.held[layer];
      return match.old_alive[old.rank] && held.first <= head && head < held.first + held.count;
    });
  };
  HomeMove move{.keeps = true, .possible = true};
  for (const HomeRank& wanted : to) {
    const int same_machine = match.old_of_new[wanted.rank];
    const bool stays = std::any_of(from.begin(), from.end(), [&](const HomeRank& old) {
      return old.rank == same_machine && old.held == wanted.held;
    });
    if (stays) continue;
    move.keeps = false;
    move.bytes_per_token += wanted.kv_per_token;
    for (size_t l = 0; l < wanted.held.size() && move.possible; ++l) {
      const Held& heads = wanted.held[l];
      for (int h = heads.first; h < heads.first + heads.count; ++h) {
        move.possible = move.possible && has_head(l, h);
      }
    }
  }
  return move;
}

}  // namespace

bool KeepSameState(const ModelDescription& model, const ShardMap& a, int rank_a, const ShardMap& b,
                   int rank_b) {
  return HeldBy(model, a, rank_a) == HeldBy(model, b, rank_b);
}

std::vector<StateMove> PlanStates(const ModelDescription& model, const ShardMap& from,
                                  const ShardMap& to, const RankMatch& match, const Sizing& sizing,
                                  const KvRates& rates, absl::Span<const LiveState> sequences) {
  const std::vector<std::vector<HomeRank>> old_homes = Homes(model, from, sizing);
  const std::vector<std::vector<HomeRank>> new_homes = Homes(model, to, sizing);
  std::vector<std::vector<HomeMove>> moves(from.layout.dp);  // [old home][new home]
  std::vector<int> best(from.layout.dp, 0);
  for (int o = 0; o < from.layout.dp; ++o) {
    for (int n = 0; n < to.layout.dp; ++n) {
      moves[o].push_back(MoveBetween(old_homes[o], new_homes[n], match));
    }
    const auto worth = [&](const HomeMove& m) {
      return std::pair(m.keeps ? 2 : m.possible ? 1 : 0, -m.bytes_per_token);
    };
    for (int n = 1; n < to.layout.dp; ++n) {
      if (worth(moves[o][n]) > worth(moves[o][best[o]])) best[o] = n;
    }
  }
  std::vector<StateMove> planned(sequences.size());
  std::vector<int64_t> tokens(to.layout.dp, 0);
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sequences[a].tokens > sequences[b].tokens; });
  std::vector<size_t> homeless;
  for (const size_t i : order) {
    const LiveState& sequence = sequences[i];
    const HomeMove& move = moves[sequence.home][best[sequence.home]];
    const int64_t bytes = move.bytes_per_token * sequence.tokens;
    const double send_s = static_cast<double>(bytes) / rates.peer_bytes_per_s;
    const double compute_s = static_cast<double>(sequence.tokens) / rates.prefill_tokens_per_s;
    if (!move.keeps && (!move.possible || send_s >= compute_s)) {
      homeless.push_back(i);
      continue;
    }
    planned[i] = {best[sequence.home], move.keeps ? KvFate::kKeeps : KvFate::kMoves,
                  move.keeps ? 0 : bytes};
    tokens[planned[i].home] += sequence.tokens;
  }
  for (const size_t i : homeless) {
    planned[i].home =
        static_cast<int>(std::min_element(tokens.begin(), tokens.end()) - tokens.begin());
    tokens[planned[i].home] += sequences[i].tokens;
  }
  return planned;
}

}  // namespace troupe
