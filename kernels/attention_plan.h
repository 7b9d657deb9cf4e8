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

#include "kernels/attention_task.h"
#include "kernels/tensor.h"

namespace troupe {

// Checks what the kernels take for granted of any attention's tensors and caches.
void CheckAttention(const BatchView& batch, int heads, const KvStream& k, const KvStream& v,
                    const Tensor& q, const Tensor& out);

// Tiles of at most tile_tokens tokens.
std::vector<AttentionTile> ListTiles(const BatchView& batch, const VisibleEntries& visible,
                                     int kv_heads, int tile_tokens);

// Tokens of the largest tile.
int MostTokens(const std::vector<AttentionTile>& tiles);

struct AttentionPlan {
  std::vector<AttentionTile> tiles;
  std::vector<AttentionTask> tasks;
  std::vector<int> split_tiles;  // whose parts are to be merged
  int parts = 0;
};

struct AttentionPlanOptions {
  VisibleEntries visible;
  int kv_heads = 1;
  int tile_tokens = 1;  // at most
  int threads = 1;
};

AttentionPlan PlanAttention(const BatchView& batch, const AttentionPlanOptions& options);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ATTENTION_PLAN_H_
