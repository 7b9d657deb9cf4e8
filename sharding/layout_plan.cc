#include "sharding/layout_plan.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_util.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

constexpr int64_t kFloatBytes = 4;

std::string GiB(int64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

// The widest of each kind of activation, over the layers that a rank runs; worker/runner_arena.h.
struct Widths {
  int64_t projected = 0;
  int64_t queries = 0;
  int64_t gates = 0;
  int64_t attended = 0;
  int64_t dense = 0;
  int64_t experts = 0;
  int64_t choices = 0;
  bool norms_after = false;

  void Include(const LayerDescription& layer) {
    const AttentionDescription& a = layer.attention;
    norms_after = norms_after || layer.norm_place != NormPlace::kBefore;
    int64_t outputs =
        a.query_size() + (a.nsa.has_value() ? 3 : 1) * (a.key_size() + a.value_size());
    if (a.mla.has_value()) {
      const int64_t latents = a.mla->latent_dim + a.mla->rope_dim;
      outputs = latents + (a.mla->query_latent_dim > 0 ? a.mla->query_latent_dim : a.query_size());
      if (a.mla->query_latent_dim > 0) queries = std::max<int64_t>(queries, a.query_size());
    }
    if (a.head_gate.has_value()) {
      outputs += a.head_gate->inner_size;
      gates = std::max<int64_t>(gates, a.head_gate->inner_size + 5 * a.heads);
    }
    projected = std::max(projected, outputs);
    attended = std::max<int64_t>(attended, a.attended_size());
    if (const auto* moe = std::get_if<MoeFfn>(&layer.ffn)) {
      experts = std::max<int64_t>(experts, moe->experts);
      choices = std::max<int64_t>(choices, moe->experts_per_token);
    } else {
      dense = std::max<int64_t>(dense, std::get<DenseFfn>(layer.ffn).inner_size);
    }
  }
};

// Layers that a rank runs.
template <class Visit>
void ForEachLayer(const RankShard& shard, bool with_mtp, const Visit& visit) {
  for (int i = shard.first_layer; i < shard.end_layer; ++i) visit(i);
  const bool mtp = with_mtp && shard.last_stage && shard.description.mtp.has_value();
  if (mtp) visit(shard.description.mtp_layer_index());
}

int ContextOf(const ModelDescription& model, const Sizing& sizing) {
  return sizing.context_tokens > 0 ? sizing.context_tokens : model.max_context_tokens;
}

// Ranks of a replica are alike but for stages, and for experts under redundancy: those that need
// the most memory.
int FullestRank(const ModelDescription& model, const ShardMap& map, const Sizing& sizing) {
  int fullest = 0;
  int64_t most = -1;
  for (int rank = 0; rank < map.layout.world(); ++rank) {
    const int64_t needed = BytesOfRank(model, map, rank, sizing).needed();
    if (needed > most) std::tie(fullest, most) = std::pair(rank, needed);
  }
  return fullest;
}

// Expected share of `experts` experts that `choices` random choices reach.
double ShareReached(double experts, double choices) {
  return experts < 1 ? 0 : 1 - std::pow(1 - 1 / experts, choices);
}

// Divisors of n, ascending.
std::vector<int> Divisors(int n) {
  std::vector<int> divisors;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) divisors.push_back(d);
  }
  return divisors;
}

std::vector<Layout> Allowed(const LayoutWish& wish) {
  const auto free = [](const auto& wanted, const auto& value) {
    return !wanted.has_value() || *wanted == value;
  };
  std::vector<Layout> layouts;
  for (const int tp : Divisors(wish.ranks)) {
    for (const int dp : Divisors(wish.ranks / tp)) {
      const int pp = wish.ranks / tp / dp;
      for (const bool ep : {false, true}) {
        if (!free(wish.tp, tp) || !free(wish.dp, dp) || !free(wish.pp, pp)) continue;
        if (!free(wish.expert_parallel, ep)) continue;
        layouts.push_back({tp, dp, pp, ep, ep ? wish.redundant_experts : 0});
      }
    }
  }
  return layouts;
}

LayoutCandidate Look(const ModelDescription& model, const Layout& layout, const Sizing& sizing,
                     const MachineRates& rates) {
  LayoutCandidate candidate{.layout = layout};
  const absl::StatusOr<ShardMap> map = BuildShardMap(model, layout, 0);
  candidate.status = map.status();
  if (!map.ok()) return candidate;
  candidate.fullest = BytesOfRank(model, *map, FullestRank(model, *map, sizing), sizing);
  candidate.status = CheckFits(model, *map, sizing);
  const RankBytes& bytes = candidate.fullest;
  if (sizing.memory_bytes > 0 && candidate.status.ok()) {
    const int64_t left = sizing.memory_bytes - bytes.weights - bytes.activations;
    candidate.longest_fit = layout.dp * (left / std::max<int64_t>(1, bytes.kv_longest));
  }
  candidate.cost = DecodeCost(model, *map, sizing, rates, kPlannedSequences,
                              std::min<int64_t>(kPlannedContext, ContextOf(model, sizing)));
  return candidate;
}

}  // namespace

int64_t ActivationBytes(const RankShard& shard, const Sizing& sizing) {
  Widths widths;
  ForEachLayer(shard, sizing.with_mtp,
               [&](int i) { widths.Include(LayerOf(shard.description, i)); });
  const int64_t hidden = shard.description.hidden_size;
  const int64_t streams = widths.norms_after ? 3 : 2;
  const int64_t a_token = streams * hidden + widths.projected + widths.queries + widths.gates +
                          widths.attended + 3 * widths.dense + widths.experts + 3 * widths.choices;
  const int64_t a_logit = hidden + shard.description.vocab_size;
  // Tokens of all homes, there and back again.
  const bool travels = shard.layout.expert_parallel && shard.layout.dp > 1;
  const int64_t exchanged = travels ? shard.layout.dp * (3 * hidden + 2 * widths.choices) : 0;
  return kFloatBytes * (sizing.step_tokens * (a_token + exchanged) + sizing.logit_tokens * a_logit);
}

RankBytes BytesOfRank(const ModelDescription& model, const ShardMap& map, int rank,
                      const Sizing& sizing) {
  const RankShard shard = ShardOf(model, map, rank);
  const std::vector<StateGroup> groups = ShardStateGroups(
      shard, {.kv_bytes_per_element = sizing.kv_bytes_per_element, .with_mtp = sizing.with_mtp});
  RankBytes bytes;
  bytes.weights = BytesOf(model, PartsOf(shard, sizing.with_mtp), sizing.bits);
  bytes.activations = ActivationBytes(shard, sizing);
  for (const StateGroup& group : groups) {
    const bool keeps_all = group.kind != StateGroupKind::kWindow;
    if (keeps_all) bytes.kv_per_token += group.page_bytes / kBlockTokens;
  }
  bytes.kv_longest = StateBytes(groups, ContextOf(model, sizing));
  return bytes;
}

absl::Status CheckFits(const ModelDescription& model, const ShardMap& map, const Sizing& sizing) {
  if (sizing.memory_bytes <= 0) return absl::OkStatus();
  const int rank = FullestRank(model, map, sizing);
  const RankBytes bytes = BytesOfRank(model, map, rank, sizing);
  if (bytes.needed() <= sizing.memory_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("layout ", NameOf(map.layout), ": rank ", rank, " needs ", GiB(bytes.weights),
                   " weights + ", GiB(bytes.activations), " activations + ", GiB(bytes.kv_longest),
                   " KV of one sequence of ", ContextOf(model, sizing),
                   " tokens = ", GiB(bytes.needed()), ", has ", GiB(sizing.memory_bytes)));
}

namespace {

// What a decode step is estimated by.
struct DecodeLoad {
  const ModelDescription& model;
  const Sizing& sizing;
  const MachineRates& rates;
  double sequences = 0;  // over all homes
  int64_t context_tokens = 0;

  double OfHome(const Layout& layout) const { return sequences / layout.dp; }
};

double BytesRead(const DecodeLoad& load, const RankShard& shard) {
  const double of_home = load.OfHome(shard.layout);
  double bytes = 0;
  for (const WeightPart& part : PartsOf(shard, /*with_mtp=*/false)) {
    if (part.role == WeightRole::kEmbedding) continue;
    double share = 1;
    if (part.role == WeightRole::kExpert) {
      const auto& moe = std::get<MoeFfn>(LayerOf(load.model, part.layer).ffn);
      const double tokens = shard.layout.expert_parallel ? load.sequences : of_home;
      share = ShareReached(moe.experts, tokens * moe.experts_per_token);
    }
    bytes += share * static_cast<double>(BytesOf(NumbersOf(load.model, part), load.sizing.bits));
  }
  const auto groups =
      ShardStateGroups(shard, {.kv_bytes_per_element = load.sizing.kv_bytes_per_element});
  return bytes + of_home * static_cast<double>(StateBytes(groups, load.context_tokens));
}

double ExchangeSeconds(const DecodeLoad& load, const RankShard& shard) {
  const Layout& layout = shard.layout;
  const double rows = load.OfHome(layout);
  const double row_bytes = kFloatBytes * static_cast<double>(load.model.hidden_size);
  double seconds = 0;
  const auto exchange = [&](int times, double bytes) {
    seconds += times * (load.rates.collective_s + bytes / load.rates.link_bytes_per_s);
  };
  // To every rank and back, of which a ring sends this much a rank.
  const auto all_reduce = [&](int times, double bytes) {
    if (layout.tp > 1) exchange(times, 2 * bytes * (layout.tp - 1) / layout.tp);
  };
  ForEachLayer(shard, /*with_mtp=*/false, [&](int i) {
    all_reduce(2, rows * row_bytes);
    const auto* moe = std::get_if<MoeFfn>(&LayerOf(load.model, i).ffn);
    if (moe == nullptr || !layout.expert_parallel || layout.dp == 1) return;
    const double targets = layout.dp * ShareReached(layout.dp * layout.tp, moe->experts_per_token);
    exchange(3, rows * row_bytes * std::min<double>(targets, layout.dp - 1));
  });
  if (shard.last_stage) all_reduce(1, rows * kFloatBytes * load.model.vocab_size);
  if (!shard.last_stage) exchange(1, rows * row_bytes);
  return seconds;
}

}  // namespace

StepCost DecodeCost(const ModelDescription& model, const ShardMap& map, const Sizing& sizing,
                    const MachineRates& rates, int64_t sequences, int64_t context_tokens) {
  const DecodeLoad load{model, sizing, rates, static_cast<double>(sequences), context_tokens};
  const int ranks_a_stage = map.layout.tp * map.layout.dp;
  StepCost total;
  // Stages run one after another for a token, whatever else they do meanwhile.
  for (int stage = 0; stage < map.layout.pp; ++stage) {
    StepCost slowest;
    for (int i = 0; i < ranks_a_stage; ++i) {
      const RankShard shard = ShardOf(model, map, stage * ranks_a_stage + i);
      const StepCost cost = {BytesRead(load, shard) / rates.memory_bytes_per_s,
                             ExchangeSeconds(load, shard)};
      if (cost.total_s() > slowest.total_s()) slowest = cost;
    }
    total.read_s += slowest.read_s;
    total.exchange_s += slowest.exchange_s;
  }
  return total;
}

absl::StatusOr<LayoutChoice> ChooseLayout(const ModelDescription& model, const LayoutWish& wish,
                                          const Sizing& sizing, const MachineRates& rates) {
  if (wish.ranks < 1 || wish.ranks > kMostPlannedRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("ranks: found ", wish.ranks, ", wanted 1 to ", kMostPlannedRanks));
  }
  LayoutChoice choice;
  for (const Layout& layout : Allowed(wish)) {
    choice.candidates.push_back(Look(model, layout, sizing, rates));
  }
  if (choice.candidates.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout: the factors asked for do not multiply to ", wish.ranks, " ranks"));
  }
  std::stable_sort(choice.candidates.begin(), choice.candidates.end(),
                   [](const LayoutCandidate& a, const LayoutCandidate& b) {
                     return std::pair(!a.status.ok(), a.cost.total_s()) <
                            std::pair(!b.status.ok(), b.cost.total_s());
                   });
  // None can be: the message of the one that came nearest, which is one that can be cut at least.
  const LayoutCandidate& best = choice.candidates.front();
  if (!best.status.ok()) {
    for (const LayoutCandidate& candidate : choice.candidates) {
      if (absl::IsResourceExhausted(candidate.status)) return candidate.status;
    }
    return best.status;
  }
  TROUPE_ASSIGN_OR_RETURN(choice.map, BuildShardMap(model, best.layout, 0));
  return choice;
}

}  // namespace troupe
