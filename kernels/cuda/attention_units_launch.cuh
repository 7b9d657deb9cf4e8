// Launches of kernels/cuda/attention_units.cuh, in preview (docs/gpu.md). What is launched depends
// on numbers of the host alone, upper bounds among them, so that a launch may be captured in a
// graph.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_

#include "base/check.h"
#include "kernels/cuda/attention_units_kernel.cuh"
#include "kernels/cuda/context.cuh"

namespace troupe {

template <class Sizes, Seen kSeen>
void LaunchUnitKernel(const UnitAttentionParams& params, int64_t row_blocks,
                      const CudaContext& context) {
  auto* kernel = UnitAttentionKernel<Sizes, kSeen>;
  AllowSharedMemory(kernel, Sizes::kSharedBytes, context.errors);
  const dim3 grid(static_cast<unsigned>(row_blocks),
                  static_cast<unsigned>(params.attention.k.kv_heads * params.slices),
                  static_cast<unsigned>(params.attention.parts));
  kernel<<<grid, Sizes::kThreads, Sizes::kSharedBytes, context.stream>>>(params);
}

template <int kKeyBlocks, int kValueBlocks, Seen kSeen>
void LaunchUnitSizes(const UnitAttentionParams& params, const UnitAttentionChoice& choice,
                     const CudaContext& context) {
  if constexpr (UnitsMayPair(kValueBlocks) && kSeen != Seen::kSelected) {
    if (choice.warpgroups == 2) {
      LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 2, true>, kSeen>(
          params, choice.row_blocks, context);
      return;
    }
  }
  CHECK_EQ(choice.warpgroups, 1);
  if (params.attention.parts == 1) {
    LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 1, true>, kSeen>(params, choice.row_blocks,
                                                                          context);
  } else {
    LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 1, false>, kSeen>(
        params, choice.row_blocks, context);
  }
}

// Whether rows may be copied 16 bytes at a time.
inline bool InWholeChunks(const KvStream& stream) {
  return stream.dtype == DType::kBf16 && stream.head_dim % 8 == 0 && stream.page_bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(stream.base) % 16 == 0;
}

// Whether the kernels take an operation. What decides is the same in every step of a model.
inline bool UnitsTake(const AttentionParams& params) {
  return InWholeChunks(params.k) && InWholeChunks(params.v) &&
         params.k.entries_per_page == kAttentionTile && params.scale_log2 > 0 &&
         !params.values_in_keys && FindUnitBlocks(params.k.head_dim, params.v.head_dim).keys > 0;
}

inline void FindAlignment(UnitAttentionParams& params) {
  const AttentionParams& attention = params.attention;
  params.q_aligned =
      reinterpret_cast<uintptr_t>(attention.q) % 16 == 0 && attention.q_stride % 4 == 0;
  params.out_aligned =
      reinterpret_cast<uintptr_t>(attention.out) % 8 == 0 && attention.out_stride % 2 == 0;
}

// Merges the parts of the tokens that `params` is for. A lane takes as many channels.
template <Seen kSeen, int kMostChannels>
void LaunchMerge(const UnitAttentionParams& params, const CudaContext& context) {
  const AttentionParams& attention = params.attention;
  const dim3 grid(static_cast<unsigned>(params.end_token - params.first_token),
                  static_cast<unsigned>(CeilDiv(attention.heads, kMergeThreads / kWarpSize)));
  MergeUnitPartsKernel<kSeen, kMostChannels><<<grid, kMergeThreads, 0, context.stream>>>(params);
}

// Requires UnitsTake. `most_tiles`: that any token sees.
template <Seen kSeen>
void LaunchUnitAttention(const AttentionParams& attention, int64_t most_tiles,
                         const CudaContext& context) {
  UnitAttentionParams params;
  params.attention = attention;
  const int64_t tokens = attention.batch.tokens;
  if (tokens == 0) return;
  const UnitBlocks blocks = FindUnitBlocks(attention.k.head_dim, attention.v.head_dim);
  const UnitAttentionChoice choice =
      ChooseUnitAttention({.tokens = tokens,
                           .rows = attention.batch.rows,
                           .kv_heads = attention.k.kv_heads,
                           .group_heads = attention.heads / attention.k.kv_heads,
                           .most_tiles = most_tiles,
                           .value_blocks = blocks.values,
                           .tokens_alone = kSeen == Seen::kSelected},
                          context.multiprocessors);
  params.slices = choice.slices;
  params.end_token = static_cast<int>(tokens);
  params.tokens_a_warpgroup = choice.tokens_a_warpgroup;
  params.one_each = kSeen == Seen::kSelected || tokens == attention.batch.rows;
  FindAlignment(params);
  params.attention.parts = choice.parts;
  if (choice.parts > 1) {
    const int64_t places = tokens * attention.heads * choice.parts;
    params.attention.partial = context.scratch.Take<float>(places * attention.v.head_dim);
    params.partial_softmax = context.scratch.Take<float2>(places);
    if (!context.errors.ok()) return;
  }
  switch (blocks.keys) {
    case 1:
      LaunchUnitSizes<1, 1, kSeen>(params, choice, context);
      break;
    case 2:
      LaunchUnitSizes<2, 2, kSeen>(params, choice, context);
      break;
    case 3:
      LaunchUnitSizes<3, 2, kSeen>(params, choice, context);
      break;
    default:
      LaunchUnitSizes<4, 4, kSeen>(params, choice, context);
  }
  if (choice.parts > 1) LaunchMerge<kSeen, 256 / kWarpSize>(params, context);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_
