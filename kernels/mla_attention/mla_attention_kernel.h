#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_KERNEL_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_KERNEL_H_

#include "kernels/attention_task.h"
#include "kernels/linear/linear_kernel.h"
#include "kernels/mla_attention/mla_attention.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// The tiles' one head of keys and values; see PagedAttentionTile for the arguments that they share.
// The KV head of an absorbed tile is 0, that of an expanded tile its query head.

// Queries that were brought to the latent's space, and what they attend to.
struct MlaAbsorbedView {
  BatchView batch;
  int heads = 0;
  int latent_dim = 0;
  float scale = 0;
  Tensor q;  // [T, H * (L + R)] f32
  KvStream latent;
  BlockTables tables;
  Tensor out;  // [T, H * L] f32, attended latents
};

TROUPE_DECLARE_KERNEL(MlaAbsorbedTile, const MlaAbsorbedView& view, const AttentionTile& tile,
                      int64_t first_block, int64_t end_block, float* part, float* scratch);

TROUPE_DECLARE_KERNEL(MlaAbsorbedMerge, const MlaAbsorbedView& view, const AttentionTile& tile,
                      const float* parts, int64_t part_stride, float* scratch);

// `key_up` and `value_up` are those of the tile's head. `scratch`: MlaExpandedScratchFloats.
TROUPE_DECLARE_KERNEL(MlaExpandedTile, const MlaAttentionParams& params, const PanelView& key_up,
                      const PanelView& value_up, const AttentionTile& tile, int64_t first_block,
                      int64_t end_block, float* part, float* scratch);

TROUPE_DECLARE_KERNEL(MlaExpandedMerge, const MlaAttentionParams& params, const AttentionTile& tile,
                      const float* parts, int64_t part_stride, float* scratch);

// Floats of scratch for expanded tiles of up to `rows` queries: the tile, then a block's latents as
// they are and packed, and its keys.
[[gnu::always_inline]] inline int64_t MlaExpandedScratchFloats(int rows, const MlaDims& dims) {
  const int key_dim = dims.nope_dim + dims.rope_dim;
  return TileScratchFloats(rows, key_dim, dims.value_dim) +
         int64_t{kKeyBlock} * (2 * PaddedDim(dims.latent_dim) + PaddedDim(key_dim));
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_KERNEL_H_
