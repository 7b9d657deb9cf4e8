// Pieces of an attention operation, as plain values that kernels may include; who makes them is
// kernels/attention_plan.h.
#ifndef TROUPE_KERNELS_ATTENTION_TASK_H_
#define TROUPE_KERNELS_ATTENTION_TASK_H_

#include <cstdint>

namespace troupe {

// Entries that are packed, scored and summed at a time, at multiples of their number.
inline constexpr int kKeyBlock = 64;
// Entries after which a running softmax is merged into the total; a multiple of kKeyBlock.
inline constexpr int kSplitEntries = 1024;

// Which entries a query sees: tokens, or compressed entries of `stride` tokens each, of which the
// first `skip` do not exist.
struct VisibleEntries {
  int window = 0;  // tokens; 0: all
  int stride = 1;
  int skip = 0;

  [[gnu::always_inline]] int64_t Begin(int64_t position) const {
    const int64_t begin = window > 0 ? position - window + 1 : 0;
    return begin > skip ? begin : skip;
  }
  [[gnu::always_inline]] int64_t End(int64_t position) const { return (position + 1) / stride; }
};

// Some consecutive tokens of one sequence and one KV head: their query heads share every key that
// is loaded.
struct AttentionTile {
  int row;
  int first_token;  // in the step
  int tokens;
  int kv_head;
  int64_t first_block;  // key blocks that any of the tokens sees
  int64_t end_block;
  int parts;        // splits done by tasks of their own, 0: one task does the whole tile
  int first_part;   // of the tile's parts
  int split_index;  // among the tiles that have parts
};

// A tile, or one split of it.
struct AttentionTask {
  int tile;
  int64_t first_block;
  int64_t end_block;
  int part;  // where the split's result goes, -1: the result is final
};

// Elements of a key or a value in a tile: vectors of any instruction set divide them evenly.
[[gnu::always_inline]] inline int PaddedDim(int dim) { return (dim + 15) / 16 * 16; }

// Floats that a thread needs for tiles of up to `rows` queries; a multiple of a cache line.
[[gnu::always_inline]] inline int64_t TileScratchFloats(int rows, int key_dim, int value_dim) {
  const int64_t dims = PaddedDim(key_dim) + PaddedDim(value_dim);
  const int64_t per_row = dims + PaddedDim(value_dim) + kKeyBlock + 16 + 16;
  return kKeyBlock * dims + rows * per_row + 16 * 16;
}

// Floats of one part: for each query its largest score, its sum of weights, and its weighted sum.
[[gnu::always_inline]] inline int64_t PartFloats(int rows, int value_dim) {
  return static_cast<int64_t>(rows) * (PaddedDim(value_dim) + 2);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_ATTENTION_TASK_H_
