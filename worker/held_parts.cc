#include "worker/held_parts.h"

#include <algorithm>

#include "base/check.h"

namespace troupe {
namespace {

bool HoldsExpert(const LoadedModel& model, const LoadedMoe& moe, const WeightPart& part) {
  const std::vector<int>& experts = model.shard.experts[part.layer];
  const auto at = std::lower_bound(experts.begin(), experts.end(), part.expert);
  const auto index = static_cast<size_t>(at - experts.begin());
  if (at == experts.end() || *at != part.expert || index >= moe.experts.size()) return false;
  const ExpertWeights& weights = moe.experts[index];
  return weights.gate_up != nullptr && weights.down != nullptr;
}

bool HoldsLayerPart(const LoadedModel& model, const LoadedLayer& layer, const WeightPart& part) {
  const auto* dense = std::get_if<LoadedSwiglu>(&layer.ffn);
  const auto* moe = std::get_if<LoadedMoe>(&layer.ffn);
  switch (part.role) {
    case WeightRole::kAttention:
      return layer.attention.in != nullptr && layer.attention.out != nullptr;
    case WeightRole::kDenseFfn:
      return dense != nullptr && dense->gate_up != nullptr && dense->down != nullptr;
    case WeightRole::kRouter:
      return moe != nullptr && moe->router != nullptr;
    case WeightRole::kShared:
      return moe != nullptr && moe->shared.has_value();
    case WeightRole::kExpert:
      return moe != nullptr && HoldsExpert(model, *moe, part);
    default:
      return false;
  }
}

bool Holds(const LoadedModel& model, const WeightPart& part) {
  switch (part.role) {
    case WeightRole::kEmbedding:
      return !model.embedding.empty();
    case WeightRole::kHead:
      return model.lm_head != nullptr;
    case WeightRole::kFinalNorms:
      return !model.final_norm.empty();
    case WeightRole::kMtp:
      return model.mtp.has_value();
    default:
      break;
  }
  if (model.mtp.has_value() && part.layer == model.description.mtp_layer_index()) {
    return HoldsLayerPart(model, model.mtp->layer, part);
  }
  const auto layer = std::find_if(model.layers.begin(), model.layers.end(),
                                  [&](const LoadedLayer& l) { return l.index == part.layer; });
  return layer != model.layers.end() && HoldsLayerPart(model, *layer, part);
}

}  // namespace

std::vector<WeightPart> HeldParts(const LoadedModel& model) {
  std::vector<WeightPart> parts = PartsOf(model.shard, model.mtp.has_value());
  std::erase_if(parts, [&](const WeightPart& part) { return !Holds(model, part); });
  return parts;
}

}  // namespace troupe
