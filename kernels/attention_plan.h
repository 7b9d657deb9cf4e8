// How attention over cached entries is cut into tasks: pure functions of the step's shape.
//
// A tile is some consecutive tokens of one sequence and one KV head: its query heads share every
// key that is loaded. A tile that is long beside the rest is cut over the context, so that few long
// sequences still use every thread. Cuts lie at multiples of kSplitEntries from the beginning of
// the sequence, and results are always merged split by split, in order: what a token gets does not
// depend on the plan.
#ifndef TROUPE_KERNELS_ATTENTION_PLAN_H_
#define TROUPE_KERNELS_ATTENTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace troupe {

// Entries that are packed, scored and summed at a time, at multiples of their number.
inline constexpr int kKeyBlock = 64;
// A multiple of kKeyBlock.
inline constexpr int kSplitEntries = 1024;

// Which entries a query sees: tokens, or compressed entries of `stride` tokens each, of which the
// first `skip` do not exist.
struct VisibleEntries {
  int window = 0;  // tokens; 0: all
  int stride = 1;  // tokens an entry stands for
  int skip = 0;

  [[gnu::always_inline]] int64_t Begin(int64_t position) const {
    const int64_t begin = window > 0 ? position - window + 1 : 0;
    return begin > skip ? begin : skip;
  }
  [[gnu::always_inline]] int64_t End(int64_t position) const { return (position + 1) / stride; }
};

struct AttentionTile {
  int row;
  int first_token;  // in the step
  int tokens;
  int kv_head;
  int64_t first_block;  // key blocks that any of the tokens sees
  int64_t end_block;
  int first_part = -1;  // of the tile's parts, one a split, -1: one task does the whole tile
  int parts = 0;
};

struct AttentionTask {
  int tile;
  int64_t first_block;
  int64_t end_block;
  int part;  // where the result goes, -1: it is final
};

struct AttentionPlan {
  std::vector<AttentionTile> tiles;
  std::vector<AttentionTask> tasks;
  std::vector<int> split_tiles;  // whose parts are to be merged
  int parts = 0;
};

struct AttentionPlanOptions {
  VisibleEntries visible;
  int kv_heads = 1;
  int tile_tokens = 1;
  int threads = 1;
};

AttentionPlan PlanAttention(const BatchView& batch, const AttentionPlanOptions& options);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ATTENTION_PLAN_H_
