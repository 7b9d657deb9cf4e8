// Launch of kernels/cuda/attention_latent.cuh.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_LATENT_LAUNCH_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_LATENT_LAUNCH_CUH_

#include <algorithm>

#include "kernels/cuda/attention_latent.cuh"
#include "kernels/cuda/attention_units_launch.cuh"

namespace troupe {

// Whether the kernel takes an operation. What decides is the same in every step of a model.
inline bool LatentUnitsTake(const AttentionParams& params) {
  return params.values_in_keys && InWholeChunks(params.k) && params.k.kv_heads == 1 &&
         params.k.entries_per_page == kAttentionTile && params.k.head_dim <= kMostLatentKeyDim &&
         params.v.head_dim % 8 == 0 && params.v.head_dim >= kLeastLatentValueDim &&
         params.v.head_dim <= kMostLatentValueDim && params.window == 0 && params.scale_log2 > 0;
}

// Requires LatentUnitsTake. `most_tiles`: that any token sees.
inline void LaunchLatentAttention(const AttentionParams& attention, int64_t most_tiles,
                                  const CudaContext& context) {
  const int64_t tokens = attention.batch.tokens;
  if (tokens == 0) return;
  const LatentAttentionChoice choice = ChooseLatentAttention({.tokens = tokens,
                                                              .rows = attention.batch.rows,
                                                              .heads = attention.heads,
                                                              .value_dim = attention.v.head_dim,
                                                              .most_tiles = most_tiles},
                                                             context.multiprocessors);
  UnitAttentionParams params;
  params.attention = attention;
  params.slices = choice.slices;
  params.tokens_a_warpgroup = choice.tokens_a_block;
  params.one_each = tokens == attention.batch.rows;
  params.attention.parts = choice.parts;
  params.tiles_a_block = choice.cut.tiles_a_block;
  params.in_groups = true;
  params.groups_merged = choice.merges_groups;
  const int64_t places = choice.tokens_at_once * attention.heads * choice.parts;
  params.attention.partial = context.scratch.Take<float>(places * attention.v.head_dim);
  params.partial_softmax = context.scratch.Take<float2>(places);
  if (!context.errors.ok()) return;
  FindAlignment(params);
  params.keys = MapPages(attention.k, context.errors);
  if (!context.errors.ok()) return;
  const dim3 grid(static_cast<unsigned>(choice.row_blocks), static_cast<unsigned>(choice.slices),
                  static_cast<unsigned>(choice.cut.blocks));
  for (int64_t first = 0; first < tokens; first += choice.tokens_at_once) {
    params.first_token = static_cast<int>(first);
    params.end_token = static_cast<int>(std::min(tokens, first + choice.tokens_at_once));
    Launch(
        LatentAttentionKernel,
        {.grid = grid, .threads = LatentSizes::kThreads, .shared_bytes = LatentSizes::kSharedBytes},
        context, params);
    LaunchMerge<Seen::kWindow>(params, context);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_LATENT_LAUNCH_CUH_
