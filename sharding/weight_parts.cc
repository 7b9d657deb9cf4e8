#include "sharding/weight_parts.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

absl::string_view RoleName(WeightRole role) {
  switch (role) {
    case WeightRole::kEmbedding:
      return "embedding";
    case WeightRole::kHead:
      return "head";
    case WeightRole::kFinalNorms:
      return "final norms";
    case WeightRole::kMtp:
      return "MTP module";
    case WeightRole::kAttention:
      return "attention";
    case WeightRole::kDenseFfn:
      return "FFN";
    case WeightRole::kRouter:
      return "router";
    case WeightRole::kShared:
      return "shared expert";
    case WeightRole::kExpert:
      return "expert";
  }
  CHECK(false) << "unknown role of weights";
}

void AppendLayer(const RankShard& shard, int index, std::vector<WeightPart>& parts) {
  const auto add = [&](WeightRole role, int expert, const Slice& slice) {
    parts.push_back({role, index, expert, slice});
  };
  add(WeightRole::kAttention, -1, shard.tensor);
  const auto* moe = std::get_if<MoeFfn>(&LayerOf(shard.description, index).ffn);
  if (moe == nullptr) return add(WeightRole::kDenseFfn, -1, shard.tensor);
  add(WeightRole::kRouter, -1, Slice());
  if (moe->shared_inner_size > 0) add(WeightRole::kShared, -1, shard.tensor);
  for (const int expert : shard.experts[index]) add(WeightRole::kExpert, expert, shard.expert);
}

// What both a gate's and an up product of `inner` neurons, and the product down, come to.
PartNumbers Swiglu(int64_t hidden, int64_t inner, bool bias, const Slice& slice) {
  PartNumbers numbers;
  numbers.matrices = 3 * hidden * inner;
  if (bias) numbers.others = 2 * inner + (slice.index == 0 ? hidden : 0);
  return numbers;
}

// Of one sublayer.
int64_t Norms(NormPlace place, int64_t hidden) {
  return place == NormPlace::kBoth ? 2 * hidden : hidden;
}

PartNumbers Latent(int64_t hidden, const AttentionDescription& a, int64_t heads) {
  const MlaDescription& mla = *a.mla;
  PartNumbers numbers;
  const int64_t query_inputs = mla.query_latent_dim > 0 ? mla.query_latent_dim : hidden;
  numbers.matrices = heads * a.head_dim * query_inputs + (mla.latent_dim + mla.rope_dim) * hidden +
                     mla.query_latent_dim * hidden;
  numbers.others =
      heads * (mla.nope_dim + a.value_dim) * mla.latent_dim + mla.latent_dim + mla.query_latent_dim;
  numbers.repeated = heads * mla.nope_dim * mla.latent_dim;
  return numbers;
}

PartNumbers KeysAndValues(int64_t hidden, const AttentionDescription& a, const KvHeads& kv) {
  PartNumbers numbers;
  const int64_t pairs = a.nsa.has_value() ? 3 : 1;
  const int64_t outputs = kv.count * (a.head_dim + a.value_dim);
  numbers.matrices = pairs * outputs * hidden;
  if (a.qkv_bias) numbers.others += pairs * outputs;
  if (a.qk_norm == QkNorm::kPerHead) numbers.others += pairs * a.head_dim;
  if (a.qk_norm == QkNorm::kFullWidth) numbers.others += pairs * kv.count * a.head_dim;
  return numbers;
}

// Gates of heads and branches, and compression: on every rank whole.
PartNumbers Gates(int64_t hidden, const AttentionDescription& a) {
  PartNumbers numbers;
  if (a.head_gate.has_value()) {
    numbers.matrices += a.head_gate->inner_size * (hidden + a.heads);
  }
  if (a.nsa.has_value()) {
    numbers.matrices += 3 * a.heads * hidden;
    numbers.others += 2 * (a.nsa->compress_block * a.head_dim + 2 * a.head_dim * a.head_dim);
  }
  return numbers;
}

PartNumbers Attention(int64_t hidden, const LayerDescription& layer, const Slice& slice) {
  const AttentionDescription& a = layer.attention;
  const int64_t heads = slice.SizeOf(a.heads);
  PartNumbers numbers = Gates(hidden, a);
  if (a.mla.has_value()) {
    numbers += Latent(hidden, a, heads);
  } else {
    numbers += KeysAndValues(hidden, a, KvHeadsOf(a, slice));
    numbers.matrices += heads * a.head_dim * hidden;
    if (a.qkv_bias) numbers.others += heads * a.head_dim;
    if (a.qk_norm == QkNorm::kPerHead) numbers.others += a.head_dim;
    if (a.qk_norm == QkNorm::kFullWidth) numbers.others += heads * a.head_dim;
  }
  numbers.matrices += heads * a.value_dim * hidden;
  if (a.output_bias && slice.index == 0) numbers.others += hidden;
  if (a.sinks) numbers.others += heads;
  numbers.others += Norms(layer.norm_place, hidden);
  return numbers;
}

PartNumbers Router(int64_t hidden, const LayerDescription& layer, const MoeFfn& moe) {
  PartNumbers numbers;
  numbers.others = moe.experts * hidden + Norms(layer.norm_place, hidden);
  if (moe.router.logit_bias) numbers.others += moe.experts;
  if (moe.router.correction_bias) numbers.others += moe.experts;
  return numbers;
}

PartNumbers OfLayer(int64_t hidden, const LayerDescription& layer, const WeightPart& part) {
  if (part.role == WeightRole::kAttention) return Attention(hidden, layer, part.slice);
  if (const auto* dense = std::get_if<DenseFfn>(&layer.ffn)) {
    PartNumbers numbers =
        Swiglu(hidden, part.slice.SizeOf(dense->inner_size), dense->bias, part.slice);
    numbers.others += Norms(layer.norm_place, hidden);
    return numbers;
  }
  const auto& moe = std::get<MoeFfn>(layer.ffn);
  if (part.role == WeightRole::kRouter) return Router(hidden, layer, moe);
  const bool shared = part.role == WeightRole::kShared;
  const int64_t inner = shared ? moe.shared_inner_size : moe.expert_inner_size;
  return Swiglu(hidden, part.slice.SizeOf(inner), !shared && moe.expert_bias, part.slice);
}

}  // namespace

std::strong_ordering WeightPart::operator<=>(const WeightPart& other) const {
  return std::tuple(layer, role, expert, slice.count, slice.index) <=>
         std::tuple(other.layer, other.role, other.expert, other.slice.count, other.slice.index);
}

std::string NameOf(const WeightPart& part) {
  std::string name = part.layer < 0 ? "" : absl::StrCat("layer ", part.layer, " ");
  absl::StrAppend(&name, RoleName(part.role));
  if (part.expert >= 0) absl::StrAppend(&name, " ", part.expert);
  if (part.slice.count > 1) absl::StrAppend(&name, " ", part.slice.index, "/", part.slice.count);
  return name;
}

std::vector<WeightPart> PartsOf(const RankShard& shard, bool with_mtp) {
  std::vector<WeightPart> parts;
  const bool mtp = with_mtp && shard.last_stage && shard.description.mtp.has_value();
  if (shard.first_stage || mtp) parts.push_back({.role = WeightRole::kEmbedding});
  if (shard.last_stage) {
    parts.push_back({.role = WeightRole::kHead, .slice = shard.tensor});
    parts.push_back({.role = WeightRole::kFinalNorms});
  }
  if (mtp) parts.push_back({.role = WeightRole::kMtp});
  for (int i = shard.first_layer; i < shard.end_layer; ++i) AppendLayer(shard, i, parts);
  if (mtp) AppendLayer(shard, shard.description.mtp_layer_index(), parts);
  std::sort(parts.begin(), parts.end());
  return parts;
}

PartNumbers& PartNumbers::operator+=(const PartNumbers& other) {
  matrices += other.matrices;
  others += other.others;
  repeated += other.repeated;
  return *this;
}

PartNumbers NumbersOf(const ModelDescription& model, const WeightPart& part) {
  const int64_t hidden = model.hidden_size;
  switch (part.role) {
    case WeightRole::kEmbedding:
      return {.others = model.vocab_size * hidden};
    case WeightRole::kHead:
      return {.matrices = part.slice.SizeOf(model.vocab_size) * hidden};
    case WeightRole::kFinalNorms:
      return {.others = hidden * (1 + static_cast<int64_t>(model.early_exit_layers.size()))};
    case WeightRole::kMtp:
      return {.matrices = 2 * hidden * hidden, .others = 3 * hidden};
    default:
      return OfLayer(hidden, LayerOf(model, part.layer), part);
  }
}

int64_t BytesOf(const PartNumbers& numbers, const WeightBits& bits) {
  const double matrices = static_cast<double>(numbers.matrices) * bits.matrices;
  const double others = static_cast<double>(numbers.others + numbers.repeated) * bits.others;
  return static_cast<int64_t>((matrices + others) / 8);
}

int64_t BytesOf(const ModelDescription& model, const std::vector<WeightPart>& parts,
                const WeightBits& bits) {
  int64_t bytes = 0;
  for (const WeightPart& part : parts) bytes += BytesOf(NumbersOf(model, part), bits);
  return bytes;
}

}  // namespace troupe
