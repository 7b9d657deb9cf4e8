#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_KERNEL_H_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_KERNEL_H_

#include "kernels/attention_task.h"
#include "kernels/nsa_select/nsa_select.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Which compressed entries a query sees. Compression block i is entry i + skip.
[[gnu::always_inline]] inline VisibleEntries CompressedEntries(const NsaSizes& sizes) {
  return {.window = 0,
          .stride = sizes.compress_stride,
          .skip = sizes.compress_block / sizes.compress_stride - 1};
}

// More than any model has; these bound what a kernel keeps on its stack.
inline constexpr int kMaxSelectedBlocks = 256;
inline constexpr int kMaxGroupHeads = 64;

// Scores of a tile: [queries, stride] floats, entry by entry of the sequence.
struct NsaScores {
  float* data;
  int64_t stride;  // a multiple of kKeyBlock that covers all entries of any tile
};

// Floats of scratch for a tile of up to `rows` queries.
[[gnu::always_inline]] inline int64_t NsaSelectScratchFloats(const NsaSizes& sizes, int rows,
                                                             int key_dim, int value_dim,
                                                             int64_t score_stride) {
  const int64_t mass = score_stride + kBlockTokens + sizes.compress_block + 16;
  return TileScratchFloats(rows, key_dim, value_dim) + (mass + 15) / 16 * 16;
}

// Blocks [first_block, end_block) of a tile; see PagedAttentionTile. `part` null: params.out and
// params.selected are written.
TROUPE_DECLARE_KERNEL(NsaSelectTile, const NsaSelectParams& params, const AttentionTile& tile,
                      int64_t first_block, int64_t end_block, float* part, NsaScores scores,
                      float* scratch);

// Merges a tile's parts, `part_stride` floats apart, whose scores are complete.
TROUPE_DECLARE_KERNEL(NsaSelectMerge, const NsaSelectParams& params, const AttentionTile& tile,
                      const float* parts, int64_t part_stride, NsaScores scores, float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_KERNEL_H_
