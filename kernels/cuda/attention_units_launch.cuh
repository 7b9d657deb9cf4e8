// Launches of kernels/cuda/attention_units.cuh. What is launched depends on numbers of the
// host alone, upper bounds among them, so that a launch may be captured in a graph.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_

#include "base/check.h"
#include "kernels/cuda/attention_units_kernel.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.cuh"

namespace troupe {

template <class Sizes, Seen kSeen>
void LaunchUnitKernel(UnitAttentionParams params, const UnitAttentionChoice& choice,
                      const CudaContext& context) {
  const RowBlocks blocks =
      FindRowBlocks(params.first_token, params.end_token, params.attention.batch.rows,
                    params.one_each, params.tokens_a_warpgroup * Sizes::kTokenWarpgroups);
  params.first_block = blocks.first;
  const dim3 grid(static_cast<unsigned>(blocks.count),
                  static_cast<unsigned>(params.attention.k.kv_heads * params.slices),
                  static_cast<unsigned>(choice.cut.blocks));
  Launch(UnitAttentionKernel<Sizes, kSeen>,
         {.grid = grid, .threads = Sizes::kThreads, .shared_bytes = Sizes::kSharedBytes}, context,
         params);
}

template <int kKeyBlocks, int kValueBlocks, Seen kSeen>
void LaunchUnitSizes(const UnitAttentionParams& params, const UnitAttentionChoice& choice,
                     const CudaContext& context) {
  if constexpr (UnitsMayPair(kValueBlocks) && kSeen != Seen::kSelected) {
    if (choice.warpgroups == 2) {
      LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 2, true>, kSeen>(params, choice,
                                                                            context);
      return;
    }
  }
  CHECK_EQ(choice.warpgroups, 1);
  if (params.attention.parts == 1) {
    LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 1, true>, kSeen>(params, choice, context);
  } else {
    LaunchUnitKernel<UnitSizes<kKeyBlocks, kValueBlocks, 1, false>, kSeen>(params, choice, context);
  }
}

// Whether rows may be copied 16 bytes at a time.
inline bool InWholeChunks(const KvStream& stream) {
  return stream.dtype == DType::kBf16 && stream.head_dim % 8 == 0 && stream.page_bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(stream.base) % 16 == 0;
}

// Whether the kernels take an operation. What decides is the same in every step of a model. Only
// compressed entries may come in pages of less than a tile.
template <Seen kSeen>
bool UnitsTake(const AttentionParams& params) {
  const int entries = params.k.entries_per_page;
  const bool whole_pages =
      kSeen == Seen::kCompressed ? kAttentionTile % entries == 0 : entries == kAttentionTile;
  return InWholeChunks(params.k) && InWholeChunks(params.v) && whole_pages &&
         params.scale_log2 > 0 && !params.values_in_keys &&
         FindUnitBlocks(params.k.head_dim, params.v.head_dim).keys > 0;
}

inline void FindAlignment(UnitAttentionParams& params) {
  const AttentionParams& attention = params.attention;
  params.q_aligned =
      reinterpret_cast<uintptr_t>(attention.q) % 16 == 0 && attention.q_stride % 4 == 0;
  params.out_aligned =
      reinterpret_cast<uintptr_t>(attention.out) % 8 == 0 && attention.out_stride % 2 == 0;
}

// Merges the parts of the tokens that `params` is for.
template <Seen kSeen>
void LaunchMerge(const UnitAttentionParams& params, const CudaContext& context) {
  const AttentionParams& attention = params.attention;
  const dim3 grid(static_cast<unsigned>(params.end_token - params.first_token),
                  static_cast<unsigned>(CeilDiv(attention.heads, kMergeThreads / kWarpSize)),
                  static_cast<unsigned>(CeilDiv(attention.v.head_dim, kMergeChannels)));
  Launch(MergeUnitPartsKernel<kSeen>, {.grid = grid, .threads = kMergeThreads}, context, params);
}

// What a launch needs. Its tokens may be narrowed down before it runs.
struct UnitLaunch {
  UnitAttentionParams params;
  UnitAttentionChoice choice;
  UnitBlocks blocks;
};

// Requires UnitsTake. `most_tiles`: that any token sees.
template <Seen kSeen>
UnitLaunch MakeUnitLaunch(const AttentionParams& attention, int64_t most_tiles,
                          const CudaContext& context) {
  UnitLaunch launch;
  UnitAttentionParams& params = launch.params;
  params.attention = attention;
  const int64_t tokens = attention.batch.tokens;
  launch.blocks = FindUnitBlocks(attention.k.head_dim, attention.v.head_dim);
  launch.choice = ChooseUnitAttention({.tokens = tokens,
                                       .rows = attention.batch.rows,
                                       .kv_heads = attention.k.kv_heads,
                                       .group_heads = attention.heads / attention.k.kv_heads,
                                       .most_tiles = most_tiles,
                                       .value_blocks = launch.blocks.values,
                                       .tokens_alone = kSeen == Seen::kSelected},
                                      context.multiprocessors);
  const UnitAttentionChoice& choice = launch.choice;
  params.slices = choice.slices;
  params.end_token = static_cast<int>(tokens);
  params.tokens_a_warpgroup = choice.tokens_a_warpgroup;
  params.one_each = kSeen == Seen::kSelected || tokens == attention.batch.rows;
  FindAlignment(params);
  if (attention.k.dtype != DType::kE4M3) {
    params.keys = MapPages(attention.k, context.errors);
    params.values = MapPages(attention.v, context.errors);
  }
  params.attention.parts = choice.parts;
  params.tiles_a_block = choice.cut.tiles_a_block;
  if (choice.parts > 1) {
    const int64_t places = tokens * attention.heads * choice.parts;
    params.attention.partial = context.scratch.Take<float>(places * attention.v.head_dim);
    params.partial_softmax = context.scratch.Take<float2>(places);
  }
  return launch;
}

template <Seen kSeen>
void RunUnitLaunch(const UnitLaunch& launch, const CudaContext& context) {
  if (!context.errors.ok()) return;
  const UnitAttentionParams& params = launch.params;
  switch (launch.blocks.keys) {
    case 1:
      LaunchUnitSizes<1, 1, kSeen>(params, launch.choice, context);
      break;
    case 2:
      LaunchUnitSizes<2, 2, kSeen>(params, launch.choice, context);
      break;
    case 3:
      LaunchUnitSizes<3, 2, kSeen>(params, launch.choice, context);
      break;
    default:
      LaunchUnitSizes<4, 4, kSeen>(params, launch.choice, context);
  }
  if (launch.choice.parts > 1) LaunchMerge<kSeen>(params, context);
}

template <Seen kSeen>
void LaunchUnitAttention(const AttentionParams& attention, int64_t most_tiles,
                         const CudaContext& context) {
  if (attention.batch.tokens == 0) return;
  RunUnitLaunch<kSeen>(MakeUnitLaunch<kSeen>(attention, most_tiles, context), context);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_LAUNCH_CUH_
