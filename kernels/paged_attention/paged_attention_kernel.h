#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_KERNEL_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_KERNEL_H_

#include "kernels/attention_task.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Blocks [first_block, end_block) of a tile. `part`: where a split's result goes; null: the blocks
// are all of the tile's, and the result goes to params.out. `scratch`: TileScratchFloats.
TROUPE_DECLARE_KERNEL(PagedAttentionTile, const PagedAttentionParams& params,
                      const AttentionTile& tile, int64_t first_block, int64_t end_block,
                      float* part, float* scratch);

// Merges a tile's parts, `part_stride` floats apart, into params.out.
TROUPE_DECLARE_KERNEL(PagedAttentionMerge, const PagedAttentionParams& params,
                      const AttentionTile& tile, const float* parts, int64_t part_stride,
                      float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_KERNEL_H_
