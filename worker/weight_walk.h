// The tensors that a rank's weights are made of, one after another, and where each lies in the
// whole model's.
//
// Thread model: pure function. Ownership: views borrow as ModelWeights do.
#ifndef TROUPE_WORKER_WEIGHT_WALK_H_
#define TROUPE_WORKER_WEIGHT_WALK_H_

#include <cstdint>
#include <vector>

#include "model/checkpoint.h"
#include "model/matrix_view.h"
#include "sharding/rank_shard.h"
#include "sharding/weight_ledger.h"
#include "sharding/weight_parts.h"

namespace troupe {

// A rectangle of one tensor.
struct WeightPatch {
  WeightPart part;      // that it belongs to
  WeightExtent extent;  // of the tensor that it is
  int tensor = 0;       // of the part, counted whether a rank has it or not
  MatrixView view;
  int64_t first_row = 0;  // in the whole tensor
  int64_t first_col = 0;
};

// `part` is what SliceWeights gives of `whole` for the shard. Those of one part are neighbours; the
// MTP module is left out.
std::vector<WeightPatch> WalkWeights(const RankShard& shard, const ModelWeights& part,
                                     const ModelWeights& whole);

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_WALK_H_
