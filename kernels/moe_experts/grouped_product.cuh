// Products of many rows with experts' weights on a warpgroup's matrix units, operands brought by
// the copy engine: one block a multiprocessor, which takes tile after tile.
//
// A tile is 128 weight rows, 64 for each of two warpgroups, by up to 64 or 256 of one expert's
// rows, which are the products' columns: a tile costs what its rows need, in steps of 16, 32, 64
// and 128. A third warpgroup's first thread keeps a few steps of 64 inputs on the way.
//
// Invariant: an output is the sum over the inputs in steps of 16, in order, whatever the tile.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_GROUPED_PRODUCT_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_GROUPED_PRODUCT_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/cuda/warpgroup_product.cuh"

namespace troupe {

inline constexpr int kGroupedConsumers = 256;  // two warpgroups
inline constexpr int kGroupedThreads = kGroupedConsumers + 128;
inline constexpr int kGroupedWeights = 128;        // weight rows of a tile
inline constexpr int kGroupedInputs = kMapInputs;  // of a stage: rows of 128 bytes
inline constexpr int kGroupedRowBytes = kGroupedInputs * 2;
inline constexpr int kGroupedWeightBytes = kGroupedWeights * kGroupedRowBytes;

// Tiles of at most kRows rows. Fewer leave room for more stages, and copies bring fewer at a time.
template <int kMostRows>
struct GroupedShape {
  static constexpr int kRows = kMostRows;
  static constexpr int kBoxRows = kMostRows <= 64 ? 16 : 64;  // that one copy brings
  static constexpr int kBoxBytes = kBoxRows * kGroupedRowBytes;
  static constexpr int kStageBytes = kGroupedWeightBytes + kMostRows * kGroupedRowBytes;
  static constexpr int kStages = (226 << 10) / kStageBytes;
  // Tiles begin at multiples of 1024.
  static constexpr int kSharedBytes = kStages * kStageBytes + 1024;
};

// Pointers are to device memory. An expert's map has 4 dimensions: inputs, 8 rows, 2 halves, groups
// of 16 rows, so that rows come in an order in which a thread's two rows, 8 apart in the tile,
// belong together: an output's gate and up, or two neighbours.
struct GroupedProduct {
  const CUtensorMap* weights = nullptr;  // [experts]
  const float* const* bias = nullptr;    // [experts], null: none
  const int32_t* tile_group = nullptr;   // expert of a tile of rows
  const int32_t* tile_first = nullptr;   // its first row
  const int32_t* tile_rows = nullptr;    // how many
  const int32_t* tile_count = nullptr;   // [1]
  int inputs = 0;
  int weight_rows = 0;      // a multiple of 16
  CudaBf16* out = nullptr;  // [rows, weight_rows]; with kGated [rows, weight_rows / 2]
  int64_t out_stride = 0;
  Activation activation;  // with kGated
};

template <class Shape>
struct GroupedBarriers {
  CopyBarrier full[Shape::kStages];
  CopyBarrier empty[Shape::kStages];
};

struct GroupedTile {
  int group;
  int first;
  int rows;
  int weights;  // index among tiles of weight rows
};

__device__ __forceinline__ GroupedTile GroupedTileAt(const GroupedProduct& product, int index) {
  const int of_weights = (product.weight_rows + kGroupedWeights - 1) / kGroupedWeights;
  const int of_rows = index / of_weights;
  return {product.tile_group[of_rows], product.tile_first[of_rows], product.tile_rows[of_rows],
          index % of_weights};
}

__device__ __forceinline__ int GroupedTiles(const GroupedProduct& product) {
  return *product.tile_count * ((product.weight_rows + kGroupedWeights - 1) / kGroupedWeights);
}

// Where the stages are, and whose turn they are.
template <class Shape>
struct StageCursor {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
    parity ^= stage == 0 ? 1 : 0;
  }
};

// Where the stages are filled, and with what.
template <class Shape>
struct Bringer {
  const GroupedProduct& product;
  const CUtensorMap* x;
  std::byte* stages;
  GroupedBarriers<Shape>& barriers;
  int tiles;
  // The next stage's.
  StageCursor<Shape> cursor;
  int index = static_cast<int>(blockIdx.x);
  int input = 0;
  GroupedTile tile = {};

  __device__ bool Begin() {
    if (index >= tiles) return false;
    if (input == 0) tile = GroupedTileAt(product, index);
    return true;
  }
  __device__ int Boxes() const { return (tile.rows + Shape::kBoxRows - 1) / Shape::kBoxRows; }
  __device__ std::byte* Stage() const { return stages + cursor.stage * Shape::kStageBytes; }
  __device__ void BringWeights() {
    CopyBarrier* full = barriers.full + cursor.stage;
    WaitFor(barriers.empty + cursor.stage, cursor.parity ^ 1);
    ArriveExpecting(full, kGroupedWeightBytes + Boxes() * Shape::kBoxBytes);
    CopyTensor4(Stage(), product.weights + tile.group, input, 0, 0,
                tile.weights * (kGroupedWeights / 16), full);
  }
  __device__ void BringRows() {
    for (int box = 0; box < Boxes(); ++box) {
      CopyTensor2(Stage() + kGroupedWeightBytes + box * Shape::kBoxBytes, x, input,
                  tile.first + box * Shape::kBoxRows, barriers.full + cursor.stage);
    }
  }
  __device__ void Advance() {
    cursor.Advance();
    input += kGroupedInputs;
    if (input < product.inputs) return;
    input = 0;
    index += static_cast<int>(gridDim.x);
  }
};

// Where the tiles are known already, the first weights are there before the kernel that makes x
// ends.
template <class Shape, bool kTilesKnown>
__device__ __forceinline__ void BringTiles(const GroupedProduct& product, const CUtensorMap* x,
                                           std::byte* stages, GroupedBarriers<Shape>& barriers) {
  Bringer<Shape> bringer = {product, x, stages, barriers, GroupedTiles(product)};
  if constexpr (kTilesKnown) {
    Bringer<Shape> ahead = bringer;
    for (int i = 0; i < Shape::kStages && ahead.Begin(); ++i, ahead.Advance()) {
      ahead.BringWeights();
    }
    WaitForEarlierKernels();
    for (int i = 0; i < Shape::kStages && bringer.Begin(); ++i, bringer.Advance()) {
      bringer.BringRows();
    }
  }
  for (; bringer.Begin(); bringer.Advance()) {
    bringer.BringWeights();
    bringer.BringRows();
  }
}

// One chunk of a tile's columns.
template <int kColumns, bool kGated>
__device__ __forceinline__ void StoreGrouped(const GroupedProduct& product, const GroupedTile& tile,
                                             int first_column, float (&sums)[kColumns / 2]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;  // of both warpgroups
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int of_16 = tile.weights * (kGroupedWeights / 16) + warp;
  if (of_16 * 16 >= product.weight_rows) return;
  const float* bias = product.bias[tile.group];
  if constexpr (kGated) {
    const int outputs = product.weight_rows / 2;
    const int output = of_16 * 8 + lane / 4;
    const float gate_bias = bias == nullptr ? 0.0F : bias[output];
    const float up_bias = bias == nullptr ? 0.0F : bias[outputs + output];
    WithActivation(product.activation, [&](const auto& activate) {
#pragma unroll
      for (int i = 0; i < kColumns / 2; i += 4) {
        sums[i] = activate(sums[i] + gate_bias, sums[i + 2] + up_bias);
        sums[i + 1] = activate(sums[i + 1] + gate_bias, sums[i + 3] + up_bias);
      }
    });
    CudaBf16* to = product.out + (output & ~1);
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
      const float first = sums[4 * i];
      const float second = sums[4 * i + 1];
      // Neighbours in `output` swap, so that each has two outputs of one row.
      const bool odd = lane / 4 % 2 == 1;
      const float other = __shfl_xor_sync(kAllLanes, odd ? first : second, 4);
      const __nv_bfloat162 pair =
          odd ? __floats2bfloat162_rn(other, second) : __floats2bfloat162_rn(first, other);
      const int column = first_column + i * 8 + lane % 4 * 2 + (odd ? 1 : 0);
      if (column < tile.rows) {
        *reinterpret_cast<__nv_bfloat162*>(to + (tile.first + column) * product.out_stride) = pair;
      }
    }
  } else {
    const int output = of_16 * 16 + lane / 4 * 2;
    const float bias_0 = bias == nullptr ? 0.0F : bias[output];
    const float bias_1 = bias == nullptr ? 0.0F : bias[output + 1];
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int column = first_column + i * 8 + lane % 4 * 2 + c;
        if (column >= tile.rows) continue;
        CudaBf16* to = product.out + (tile.first + column) * product.out_stride + output;
        *reinterpret_cast<__nv_bfloat162*>(to) =
            __floats2bfloat162_rn(sums[4 * i + c] + bias_0, sums[4 * i + 2 + c] + bias_1);
      }
    }
  }
}

// A tile of kFirst columns, and, where that is 128, kSecond more (0: none).
template <int kFirst, int kSecond, bool kGated, class Shape>
__device__ __forceinline__ void MultiplyTile(const GroupedProduct& product, const GroupedTile& tile,
                                             std::byte* stages, GroupedBarriers<Shape>& barriers,
                                             StageCursor<Shape>& cursor) {
  constexpr int kUsedSecond = kSecond > 0 ? kSecond : 16;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  float first[kFirst / 2];
  float second[kUsedSecond / 2];
  int last_stage = -1;
  for (int input = 0; input < product.inputs; input += kGroupedInputs) {
    WaitFor(barriers.full + cursor.stage, cursor.parity);
    const uint32_t stage = SharedAddress(stages + cursor.stage * Shape::kStageBytes);
    const uint64_t a = OperandDescriptor(stage + warpgroup * 64 * kGroupedRowBytes);
    const uint64_t b = OperandDescriptor(stage + kGroupedWeightBytes);
    BeginProducts();
#pragma unroll
    for (int k = 0; k < kGroupedInputs / 16; ++k) {
      const uint64_t step = k * (32 >> 4);
      MultiplyTiles(first, a + step, b + step, input > 0 || k > 0);
      if constexpr (kSecond > 0) {
        MultiplyTiles(second, a + step, b + step + ((kFirst * kGroupedRowBytes) >> 4),
                      input > 0 || k > 0);
      }
    }
    CommitProducts();
    // The stage before this one has been read.
    WaitForProducts<1>();
    if (last_stage >= 0 && threadIdx.x % kWarpSize == 0) Arrive(barriers.empty + last_stage);
    last_stage = cursor.stage;
    cursor.Advance();
  }
  WaitForProducts<0>();
  if (threadIdx.x % kWarpSize == 0) Arrive(barriers.empty + last_stage);
  StoreGrouped<kFirst, kGated>(product, tile, 0, first);
  if constexpr (kSecond > 0) StoreGrouped<kSecond, kGated>(product, tile, kFirst, second);
}

template <bool kGated, class Shape>
__device__ __forceinline__ void MultiplyTilesOf(const GroupedProduct& product, std::byte* stages,
                                                GroupedBarriers<Shape>& barriers) {
  StageCursor<Shape> cursor;
  const int tiles = GroupedTiles(product);
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const GroupedTile tile = GroupedTileAt(product, index);
    const int rows = tile.rows;
    if (rows <= 16) {
      MultiplyTile<16, 0, kGated>(product, tile, stages, barriers, cursor);
    } else if (rows <= 32) {
      MultiplyTile<32, 0, kGated>(product, tile, stages, barriers, cursor);
    } else if (rows <= 64) {
      MultiplyTile<64, 0, kGated>(product, tile, stages, barriers, cursor);
    } else if constexpr (Shape::kRows > 64) {
      if (rows <= 128) {
        MultiplyTile<128, 0, kGated>(product, tile, stages, barriers, cursor);
      } else if constexpr (Shape::kRows > 128) {
        if (rows <= 144) {
          MultiplyTile<128, 16, kGated>(product, tile, stages, barriers, cursor);
        } else if (rows <= 160) {
          MultiplyTile<128, 32, kGated>(product, tile, stages, barriers, cursor);
        } else if (rows <= 192) {
          MultiplyTile<128, 64, kGated>(product, tile, stages, barriers, cursor);
        } else {
          MultiplyTile<128, 128, kGated>(product, tile, stages, barriers, cursor);
        }
      }
    }
  }
}

// Grid: as many blocks as there are multiprocessors. Dynamic shared memory: Shape::kSharedBytes.
template <bool kGated, class Shape>
__global__ void __launch_bounds__(kGroupedThreads, 1)
    GroupedProductKernel(const __grid_constant__ CUtensorMap x, GroupedProduct product) {
  extern __shared__ std::byte grouped_shared[];
  __shared__ GroupedBarriers<Shape> barriers;
  auto* stages = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(grouped_shared) + 1023) /
                                              1024 * 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      InitBarrier(barriers.full + i, 1);
      InitBarrier(barriers.empty + i, kGroupedConsumers / kWarpSize);
    }
    FenceBarriers();
  }
  __syncthreads();
  // The second product's tiles are the first one's, which began when they were known.
  constexpr bool kTilesKnown = !kGated;
  if constexpr (!kTilesKnown) WaitForEarlierKernels();
  LetNextKernelBegin();
  if (threadIdx.x >= kGroupedConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x == kGroupedConsumers) {
      BringTiles<Shape, kTilesKnown>(product, &x, stages, barriers);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    MultiplyTilesOf<kGated>(product, stages, barriers);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_GROUPED_PRODUCT_CUH_
