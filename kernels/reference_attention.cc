#include "kernels/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kv_entry.h"

namespace troupe {

std::vector<double> LoadEntry(const KvStream& stream, const BlockTables& tables, uint32_t slot,
                              int64_t entry, int kv_head) {
  const uint32_t page = tables.pages[slot * tables.stride + entry / stream.entries_per_page];
  const std::vector<float> values =
      LoadKvEntry(stream, page, kv_head, entry % stream.entries_per_page);
  return {values.begin(), values.end()};
}

std::vector<double> AttentionWeights(const float* q, double scale, const KvStream& k,
                                     const BlockTables& tables, uint32_t slot, int kv_head,
                                     const std::vector<int64_t>& entries, const float* sink) {
  std::vector<double> weights;
  double largest = sink == nullptr ? -std::numeric_limits<double>::infinity() : *sink;
  for (const int64_t entry : entries) {
    const std::vector<double> key = LoadEntry(k, tables, slot, entry, kv_head);
    double score = 0;
    for (int c = 0; c < k.head_dim; ++c) score += q[c] * key[c];
    weights.push_back(score * scale);
    largest = std::max(largest, weights.back());
  }
  double sum = sink == nullptr ? 0 : std::exp(*sink - largest);
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<double> WeightedSum(const std::vector<double>& weights, const KvStream& v,
                                const BlockTables& tables, uint32_t slot, int kv_head,
                                const std::vector<int64_t>& entries) {
  std::vector<double> sum(v.head_dim, 0.0);
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::vector<double> value = LoadEntry(v, tables, slot, entries[i], kv_head);
    for (int c = 0; c < v.head_dim; ++c) sum[c] += weights[i] * value[c];
  }
  return sum;
}

void MixHead(const HeadMix& mix, int64_t token, int head, const std::vector<double>& attended,
             const Tensor& out) {
  const int64_t size = static_cast<int64_t>(attended.size());
  float* to = out.f32(token) + head * size;
  const double factor = mix.At(token, head);
  for (int64_t c = 0; c < size; ++c) {
    const double before = mix.accumulate ? to[c] : 0.0;
    to[c] = static_cast<float>(before + factor * attended[c]);
  }
}

void AttendAndMix(const Tensor& q, double scale, const KvStream& k, const KvStream& v,
                  const BlockTables& tables, uint32_t slot, int kv_head,
                  const std::vector<int64_t>& entries, const HeadMix& mix, int64_t token, int head,
                  const Tensor& out, const float* sink) {
  std::vector<double> attended(v.head_dim, 0.0);
  if (mix.At(token, head) != 0) {
    const float* query = q.f32(token) + static_cast<int64_t>(head) * k.head_dim;
    const std::vector<double> weights =
        AttentionWeights(query, scale, k, tables, slot, kv_head, entries, sink);
    attended = WeightedSum(weights, v, tables, slot, kv_head, entries);
  }
  MixHead(mix, token, head, attended, out);
}

}  // namespace troupe
