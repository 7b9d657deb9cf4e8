#include "sharding/layout_rules.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_util.h"
#include "sharding/expert_placement.h"
#include "sharding/weight_parts.h"

namespace troupe {
namespace {

absl::Status Impossible(const Layout& layout, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("layout ", NameOf(layout), ": ", why));
}

// `what` of layer `layer` must be a multiple of tp.
absl::Status Divides(const Layout& layout, int layer, absl::string_view what, int64_t size) {
  if (size % layout.tp == 0) return absl::OkStatus();
  return Impossible(layout, absl::StrCat("layer ", layer, ": found ", size, " ", what, ", ", size,
                                         " / ", layout.tp, " leaves ", size % layout.tp,
                                         ", wanted a multiple of tp = ", layout.tp));
}

absl::Status CheckAttention(const Layout& layout, int layer, const AttentionDescription& a) {
  TROUPE_RETURN_IF_ERROR(Divides(layout, layer, "attention heads", a.heads));
  if (a.mla.has_value() || a.kv_heads % layout.tp == 0) return absl::OkStatus();
  if (a.nsa.has_value()) {
    return Impossible(layout, absl::StrCat("layer ", layer, ": found ", a.kv_heads,
                                           " KV heads, wanted a multiple ", "of tp = ", layout.tp,
                                           ": sparse attention chooses blocks for the ",
                                           a.heads / a.kv_heads, " heads of a KV head together"));
  }
  if (layout.tp % a.kv_heads == 0) return absl::OkStatus();
  return Impossible(layout,
                    absl::StrCat("layer ", layer, ": found ", a.kv_heads,
                                 " KV heads, wanted a multiple or a divisor of tp = ", layout.tp));
}

absl::Status CheckFfn(const Layout& layout, int layer, const FfnDescription& ffn) {
  if (const auto* dense = std::get_if<DenseFfn>(&ffn)) {
    return Divides(layout, layer, "neurons of the FFN", dense->inner_size);
  }
  const auto& moe = std::get<MoeFfn>(ffn);
  TROUPE_RETURN_IF_ERROR(
      Divides(layout, layer, "neurons of the shared expert", moe.shared_inner_size));
  if (!layout.expert_parallel) {
    return Divides(layout, layer, "neurons of an expert", moe.expert_inner_size);
  }
  const int ranks = layout.tp * layout.dp;
  const int copies = moe.experts + layout.redundant_experts;
  if (copies < ranks) {
    return Impossible(layout,
                      absl::StrCat("layer ", layer, ": found ", moe.experts, " experts + ",
                                   layout.redundant_experts, " copies, wanted one at least ",
                                   "for each of tp * dp = ", ranks, " ranks"));
  }
  if (layout.redundant_experts > moe.experts * (ranks - 1)) {
    return Impossible(layout, absl::StrCat("layer ", layer, ": found ", layout.redundant_experts,
                                           " copies, wanted at most ", moe.experts, " experts * (",
                                           ranks, " ranks - 1): a rank holds an expert once"));
  }
  return absl::OkStatus();
}

// Where stages begin so that the largest sum of `cost` over a stage is as small as can be.
std::vector<int> Partition(const std::vector<int64_t>& cost, int stages) {
  const auto layers = static_cast<int>(cost.size());
  // Greedy cut under a limit; empty where it takes too many stages.
  const auto cut = [&](int64_t limit) {
    std::vector<int> first = {0};
    int64_t sum = 0;
    for (int i = 0; i < layers; ++i) {
      const int stages_left = stages - static_cast<int>(first.size());
      const bool must_cut = layers - i == stages_left && i > first.back();
      if (i > first.back() && stages_left > 0 && (sum + cost[i] > limit || must_cut)) {
        first.push_back(i);
        sum = 0;
      }
      sum += cost[i];
      if (sum > limit) return std::vector<int>();
    }
    first.push_back(layers);
    return first;
  };
  int64_t low = *std::max_element(cost.begin(), cost.end());
  int64_t high = std::accumulate(cost.begin(), cost.end(), int64_t{0});
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (cut(middle).empty()) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return cut(high);
}

// Numbers of each layer, with those of the first and the last stage added to its ends.
std::vector<int64_t> LayerCosts(const ModelDescription& model) {
  std::vector<int64_t> cost(model.layers.size(), 0);
  const auto last = static_cast<int>(cost.size()) - 1;
  for (const WeightPart& part : PartsOf(WholeModel(model), /*with_mtp=*/true)) {
    const PartNumbers numbers = NumbersOf(model, part);
    const int layer = part.role == WeightRole::kEmbedding ? 0
                      : part.layer < 0                    ? last
                                                          : std::min(part.layer, last);
    cost[layer] += numbers.matrices + numbers.others + numbers.repeated;
  }
  return cost;
}

absl::Status BadLayout(absl::string_view text, absl::string_view word) {
  return absl::InvalidArgumentError(absl::StrCat(
      "layout \"", text, "\": found \"", word,
      "\", wanted words like tp2, dp2, pp2, ep and +8 (copies of experts), each number positive"));
}

}  // namespace

const LayerDescription& LayerOf(const ModelDescription& model, int index) {
  return index == model.mtp_layer_index() ? model.mtp->layer : model.layers.at(index);
}

absl::StatusOr<Layout> ParseLayout(absl::string_view text) {
  Layout layout;
  for (const absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(" ,"), absl::SkipEmpty())) {
    if (word == "ep") {
      layout.expert_parallel = true;
      continue;
    }
    absl::string_view digits = word;
    int* value = absl::ConsumePrefix(&digits, "tp")   ? &layout.tp
                 : absl::ConsumePrefix(&digits, "dp") ? &layout.dp
                 : absl::ConsumePrefix(&digits, "pp") ? &layout.pp
                 : absl::ConsumePrefix(&digits, "+")  ? &layout.redundant_experts
                                                      : nullptr;
    if (value == nullptr || !absl::SimpleAtoi(digits, value) || *value < 1 || *value > 65536) {
      return BadLayout(text, word);
    }
  }
  return layout;
}

absl::Status CheckLayout(const ModelDescription& model, const Layout& layout) {
  if (layout.tp < 1 || layout.dp < 1 || layout.pp < 1 || layout.redundant_experts < 0) {
    return Impossible(layout, "wanted tp, dp and pp of 1 at least, and no negative copies");
  }
  const auto layers = static_cast<int>(model.layers.size());
  if (layout.pp > layers) {
    return Impossible(layout,
                      absl::StrCat("found ", layers, " layers, wanted one at least for each ",
                                   "of pp = ", layout.pp, " stages"));
  }
  bool experts = false;
  for (int i = 0; i < layers + (model.mtp.has_value() ? 1 : 0); ++i) {
    const LayerDescription& layer = LayerOf(model, i);
    experts = experts || std::holds_alternative<MoeFfn>(layer.ffn);
    TROUPE_RETURN_IF_ERROR(CheckAttention(layout, i, layer.attention));
    TROUPE_RETURN_IF_ERROR(CheckFfn(layout, i, layer.ffn));
  }
  if (layout.expert_parallel && !experts) {
    return Impossible(layout, "found no layer with experts, wanted some for ep");
  }
  if (layout.redundant_experts > 0 && !layout.expert_parallel) {
    return Impossible(layout, "copies of experts are for ep, which holds experts whole");
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardMap> BuildShardMap(const ModelDescription& model, const Layout& layout,
                                       uint64_t epoch) {
  TROUPE_RETURN_IF_ERROR(CheckLayout(model, layout));
  ShardMap map;
  map.epoch = epoch;
  map.layout = layout;
  map.first_layer = Partition(LayerCosts(model), layout.pp);
  const int layers = model.mtp_layer_index() + (model.mtp.has_value() ? 1 : 0);
  std::map<int, ExpertPlacement> even;  // by number of experts
  for (int i = 0; i < layers; ++i) {
    ExpertPlacement& placement = map.experts.emplace_back();
    const auto* moe = std::get_if<MoeFfn>(&LayerOf(model, i).ffn);
    if (moe == nullptr || !layout.expert_parallel) continue;
    const auto [known, fresh] = even.try_emplace(moe->experts);
    if (fresh) {
      known->second = PlaceExperts(std::vector<double>(moe->experts, 1), layout.tp * layout.dp,
                                   layout.redundant_experts);
    }
    placement = known->second;
  }
  return map;
}

}  // namespace troupe
