// Digests of the weights that a rank holds, of the values that the checkpoint stores: they do not
// depend on how a device packs them, nor on how a layout cuts them (sharding/weight_ledger.h).
//
//     digest of a piece = sum over its tensors t, rows r and columns c of value(t, r, c) * R * C
//
// modulo 2^64, where value is the 32 bits of the stored value as f32, halves swapped, R an odd
// number that t and r choose and C one that c does, with t, r and c counted in the whole model. R
// and C are odd, so that no single changed value is lost.
#ifndef TROUPE_WORKER_WEIGHT_DIGESTS_H_
#define TROUPE_WORKER_WEIGHT_DIGESTS_H_

#include <vector>

#include "absl/types/span.h"
#include "model/checkpoint.h"
#include "sharding/rank_shard.h"
#include "sharding/weight_ledger.h"
#include "worker/weight_walk.h"

namespace troupe {

// Of these patches, by piece. Reads all of them, on `threads` threads.
std::vector<WeightPiece> DigestPatches(absl::Span<const WeightPatch> patches, int threads);

// Of the parts that PartsOf(shard, without MTP) names, likewise.
std::vector<WeightPiece> DigestWeights(const ModelDescription& model, const ModelWeights& weights,
                                       const RankShard& shard, int threads);

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_DIGESTS_H_
