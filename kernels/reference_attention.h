// What the reference attention operations share: softmax attention of one head over a list of
// entries, in double precision. Pure functions.
#ifndef TROUPE_KERNELS_REFERENCE_ATTENTION_H_
#define TROUPE_KERNELS_REFERENCE_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace troupe {

// The D elements of one entry of a sequence.
std::vector<double> LoadEntry(const KvStream& stream, const BlockTables& tables, uint32_t slot,
                              int64_t entry, int kv_head);

// softmax over `entries` of (q . k * scale); empty where `entries` is. A sink, unless null, is one
// more score, whose weight is left out.
std::vector<double> AttentionWeights(const float* q, double scale, const KvStream& k,
                                     const BlockTables& tables, uint32_t slot, int kv_head,
                                     const std::vector<int64_t>& entries,
                                     const float* sink = nullptr);

// The sum of the entries' values by `weights`: D elements, 0 where `entries` is empty.
std::vector<double> WeightedSum(const std::vector<double>& weights, const KvStream& v,
                                const BlockTables& tables, uint32_t slot, int kv_head,
                                const std::vector<int64_t>& entries);

// Adds or stores one head's result as `mix` says.
void MixHead(const HeadMix& mix, int64_t token, int head, const std::vector<double>& attended,
             const Tensor& out);

// One head of one token, from scores to `out`; a closed head only where `out` is not added to.
void AttendAndMix(const Tensor& q, double scale, const KvStream& k, const KvStream& v,
                  const BlockTables& tables, uint32_t slot, int kv_head,
                  const std::vector<int64_t>& entries, const HeadMix& mix, int64_t token, int head,
                  const Tensor& out, const float* sink = nullptr);

}  // namespace troupe

#endif  // TROUPE_KERNELS_REFERENCE_ATTENTION_H_
