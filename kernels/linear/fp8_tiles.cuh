// Products of FP8 with FP8: weights of e4m3, scaled by blocks of 128 inputs of 64 outputs, and rows
// of x of e4m3, scaled by 128 inputs. Sums over a block are formed on a warpgroup's matrix units
// and added up, scaled, in f32.
//
// A tile is kWaves * 128 weight rows by up to kMostRows of x, which are the products' columns: a
// tile costs what its rows need. Each of two warpgroups has 64 weight rows at a time, kWaves times;
// while one adds up, the other one multiplies. A third warpgroup's first thread keeps kStages
// blocks on the way. One block a multiprocessor takes tile after tile.
//
// Weight rows come in an order in which a thread's two rows, 8 apart on the matrix units, are
// neighbours.
//
// Invariant: an output is the sum over the blocks in order, whatever the tile.
#ifndef TROUPE_KERNELS_LINEAR_FP8_TILES_CUH_
#define TROUPE_KERNELS_LINEAR_FP8_TILES_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/fp8_product.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/linear/fp8_layout.h"

namespace troupe {

inline constexpr int kFp8Consumers = 256;  // two warpgroups
inline constexpr int kFp8Threads = kFp8Consumers + 128;
inline constexpr int kFp8WaveRows = 128;  // weight rows of both warpgroups
inline constexpr int kFp8WaveBytes = kFp8WaveRows * kFp8Block;

template <int kTileWaves, int kTileRows>
struct Fp8Shape {
  static constexpr int kWaves = kTileWaves;
  static constexpr int kMostRows = kTileRows;
  static constexpr int kBoxRows = kMostRows <= 32 ? 16 : 32;  // that one copy brings
  static constexpr int kWeightRows = kWaves * kFp8WaveRows;
  static constexpr int kWeightBytes = kWaves * kFp8WaveBytes;
  static constexpr int kStageBytes = kWeightBytes + kMostRows * kFp8Block;
  static constexpr int kScaleBytes = kMostRows * 4;
  static constexpr int kStages = (225 << 10) / (kStageBytes + kScaleBytes);
  // Stages begin at multiples of 1024.
  static constexpr int kSharedBytes = kStages * (kStageBytes + kScaleBytes) + 1024;
};

// Pointers are to device memory.
struct Fp8Product {
  const CUtensorMap* weights = nullptr;        // [groups]
  const float* scales = nullptr;               // [slabs, blocks]
  const float* bias = nullptr;                 // [weight_rows] or null
  const float* const* group_scales = nullptr;  // [groups] likewise, instead of the one above
  const float* const* group_bias = nullptr;    // [groups] likewise
  // Tiles of rows; without tile_group there is one group, and tiles lie one after another.
  const int32_t* tile_group = nullptr;
  const int32_t* tile_first = nullptr;  // multiples of 4
  const int32_t* tile_rows = nullptr;
  const int32_t* tile_count = nullptr;  // [1]
  int rows = 0;                         // without tile_group
  int rows_a_tile = 0;                  // likewise
  int blocks = 0;                       // of inputs
  int weight_rows = 0;                  // a multiple of kFp8Slab
  void* out = nullptr;  // [rows, weight_rows] f32; with kGated [rows, weight_rows / 2] bf16
  int64_t out_stride = 0;
  bool rounded = false;     // without kGated: results are bf16
  bool accumulate = false;  // without kGated, not rounded
  Activation activation;    // with kGated
};

struct Fp8Tile {
  int group;
  int first;
  int rows;
  int weights;  // index among tiles of weight rows
};

// Tiles of weight rows: with kGated of as many of the gate, and the same ones of `up`.
template <bool kGated, class Shape>
__device__ __forceinline__ int Fp8WeightTiles(const Fp8Product& product) {
  return (product.weight_rows + Shape::kWeightRows - 1) / Shape::kWeightRows;
}

template <bool kGated, class Shape>
__device__ __forceinline__ int Fp8Tiles(const Fp8Product& product) {
  const int of_rows = product.tile_group != nullptr
                          ? *product.tile_count
                          : (product.rows + product.rows_a_tile - 1) / product.rows_a_tile;
  return of_rows * Fp8WeightTiles<kGated, Shape>(product);
}

template <bool kGated, class Shape>
__device__ __forceinline__ Fp8Tile Fp8TileAt(const Fp8Product& product, int index) {
  const int of_weights = Fp8WeightTiles<kGated, Shape>(product);
  const int of_rows = index / of_weights;
  if (product.tile_group == nullptr) {
    const int first = of_rows * product.rows_a_tile;
    return {0, first, min(product.rows_a_tile, product.rows - first), index % of_weights};
  }
  return {product.tile_group[of_rows], product.tile_first[of_rows], product.tile_rows[of_rows],
          index % of_weights};
}

__device__ __forceinline__ const float* Fp8BiasOf(const Fp8Product& product, const Fp8Tile& tile) {
  return product.tile_group != nullptr ? product.group_bias[tile.group] : product.bias;
}

// The first weight row of a wave.
template <bool kGated, class Shape>
__device__ __forceinline__ int Fp8WaveAt(const Fp8Product& product, const Fp8Tile& tile, int wave) {
  if constexpr (kGated) return tile.weights * kFp8WaveRows + wave * (product.weight_rows / 2);
  return tile.weights * Shape::kWeightRows + wave * kFp8WaveRows;
}

template <class Shape>
struct Fp8Barriers {
  CopyBarrier full[Shape::kStages];
  CopyBarrier empty[Shape::kStages];
};

template <class Shape>
struct Fp8Cursor {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
    parity ^= stage == 0 ? 1 : 0;
  }
};

template <class Shape>
struct Fp8Stages {
  std::byte* operands;
  std::byte* scales;

  __device__ std::byte* Weights(int stage) const { return operands + stage * Shape::kStageBytes; }
  __device__ std::byte* Rows(int stage) const { return Weights(stage) + Shape::kWeightBytes; }
  __device__ float* Scales(int stage) const {
    return reinterpret_cast<float*>(scales + stage * Shape::kScaleBytes);
  }
};

// x and its scales, [blocks, rows].
struct Fp8RowMaps {
  CUtensorMap x;
  CUtensorMap scales;
};

template <bool kGated, class Shape>
__device__ __forceinline__ void BringFp8(const Fp8Product& product, const Fp8RowMaps& maps,
                                         const Fp8Stages<Shape>& stages,
                                         Fp8Barriers<Shape>& barriers) {
  Fp8Cursor<Shape> cursor;
  const int tiles = Fp8Tiles<kGated, Shape>(product);
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const Fp8Tile tile = Fp8TileAt<kGated, Shape>(product, index);
    const CUtensorMap* weights = product.weights + tile.group;
    const int boxes = (tile.rows + Shape::kBoxRows - 1) / Shape::kBoxRows;
    const int bytes =
        Shape::kWeightBytes + boxes * Shape::kBoxRows * kFp8Block + Shape::kScaleBytes;
    for (int block = 0; block < product.blocks; ++block) {
      CopyBarrier* full = barriers.full + cursor.stage;
      WaitFor(barriers.empty + cursor.stage, cursor.parity ^ 1);
      ArriveExpecting(full, bytes);
      for (int wave = 0; wave < Shape::kWaves; ++wave) {
        CopyTensor4(stages.Weights(cursor.stage) + wave * kFp8WaveBytes, weights, block * kFp8Block,
                    0, 0, Fp8WaveAt<kGated, Shape>(product, tile, wave) / 16, full);
      }
      for (int box = 0; box < boxes; ++box) {
        CopyTensor2(stages.Rows(cursor.stage) + box * Shape::kBoxRows * kFp8Block, &maps.x,
                    block * kFp8Block, tile.first + box * Shape::kBoxRows, full);
      }
      CopyTensor2(stages.Scales(cursor.stage), &maps.scales, tile.first, block, full);
      cursor.Advance();
    }
  }
}

// Two floats of shared memory, by an address that takes one register.
__device__ __forceinline__ float2 SharedPair(uint32_t address) {
  float2 pair;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n" : "=f"(pair.x), "=f"(pair.y) : "r"(address));
  return pair;
}

// total += sums of a block, scaled.
template <int kColumns>
__device__ __forceinline__ void AddScaled(const float (&sums)[kColumns / 2], uint32_t x_scales,
                                          float weight_scale, float (&total)[kColumns / 2]) {
#pragma unroll
  for (int i = 0; i < kColumns / 8; ++i) {
    const float2 x = SharedPair(x_scales + i * 8 * sizeof(float));
    const float first = __fmul_rn(x.x, weight_scale);
    const float second = __fmul_rn(x.y, weight_scale);
    total[4 * i] = __fmaf_rn(sums[4 * i], first, total[4 * i]);
    total[4 * i + 1] = __fmaf_rn(sums[4 * i + 1], second, total[4 * i + 1]);
    total[4 * i + 2] = __fmaf_rn(sums[4 * i + 2], first, total[4 * i + 2]);
    total[4 * i + 3] = __fmaf_rn(sums[4 * i + 3], second, total[4 * i + 3]);
  }
}

// The first of a thread's two weight rows of a wave.
template <bool kGated, class Shape>
__device__ __forceinline__ int Fp8RowOf(const Fp8Product& product, const Fp8Tile& tile, int wave) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;  // of both warpgroups
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  return Fp8WaveAt<kGated, Shape>(product, tile, wave) + warp * 16 + lane / 4 * 2;
}

template <int kColumns, class Shape>
__device__ __forceinline__ void StoreGated(const Fp8Product& product, const Fp8Tile& tile,
                                           float (&gate)[kColumns / 2],
                                           const float (&up)[kColumns / 2]) {
  const int size = product.weight_rows / 2;
  const int output = Fp8RowOf<true, Shape>(product, tile, 0);
  if (output >= size) return;
  const float* bias = Fp8BiasOf(product, tile);
  float2 gate_bias = {};
  float2 up_bias = {};
  if (bias != nullptr) {
    gate_bias = {bias[output], bias[output + 1]};
    up_bias = {bias[size + output], bias[size + output + 1]};
  }
  WithActivation(product.activation, [&](const auto& activate) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; i += 4) {
#pragma unroll
      for (int c = i; c < i + 2; ++c) {
        gate[c] = activate(gate[c] + gate_bias.x, up[c] + up_bias.x);
        gate[c + 2] = activate(gate[c + 2] + gate_bias.y, up[c + 2] + up_bias.y);
      }
    }
  });
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  auto* to = static_cast<CudaBf16*>(product.out) + output +
             int64_t{tile.first + column} * product.out_stride;
#pragma unroll
  for (int i = 0; i < kColumns / 8; ++i) {
    auto* row = to;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      if (i * 8 + column + c < tile.rows) {
        *reinterpret_cast<__nv_bfloat162*>(row) =
            __floats2bfloat162_rn(gate[4 * i + c], gate[4 * i + c + 2]);
      }
      row += product.out_stride;
    }
    to += 8 * product.out_stride;
  }
}

template <int kColumns, class Shape>
__device__ __forceinline__ void StoreSums(const Fp8Product& product, const Fp8Tile& tile, int wave,
                                          const float (&sums)[kColumns / 2]) {
  const int output = Fp8RowOf<false, Shape>(product, tile, wave);
  if (output >= product.weight_rows) return;
  const float* all_bias = Fp8BiasOf(product, tile);
  float2 bias = {};
  if (all_bias != nullptr) bias = {all_bias[output], all_bias[output + 1]};
  const auto store = [&](auto* to, const auto& put) {
    const int column = static_cast<int>(threadIdx.x) % 4 * 2;
    to += output + int64_t{tile.first + column} * product.out_stride;
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
      auto* row = to;
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        if (i * 8 + column + c < tile.rows) {
          put(row, float2{sums[4 * i + c] + bias.x, sums[4 * i + c + 2] + bias.y});
        }
        row += product.out_stride;
      }
      to += 8 * product.out_stride;
    }
  };
  if (product.rounded) {
    store(static_cast<CudaBf16*>(product.out), [](CudaBf16* to, const float2& sum) {
      *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(sum.x, sum.y);
    });
  } else {
    store(static_cast<float*>(product.out), [&](float* to, float2 sum) {
      auto* at = reinterpret_cast<float2*>(to);
      if (product.accumulate) sum = {at->x + sum.x, at->y + sum.y};
      *at = sum;
    });
  }
}

template <int kColumns, bool kGated, class Shape>
__device__ __forceinline__ void MultiplyFp8Tile(const Fp8Product& product, const Fp8Tile& tile,
                                                const Fp8Stages<Shape>& stages,
                                                Fp8Barriers<Shape>& barriers,
                                                Fp8Cursor<Shape>& cursor) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int slabs = product.weight_rows / kFp8Slab;
  const float* scales =
      product.tile_group != nullptr ? product.group_scales[tile.group] : product.scales;
  int scales_at[Shape::kWaves];
#pragma unroll
  for (int wave = 0; wave < Shape::kWaves; ++wave) {
    const int slab = Fp8WaveAt<kGated, Shape>(product, tile, wave) / kFp8Slab + warpgroup;
    scales_at[wave] = min(slab, slabs - 1) * product.blocks;
  }
  float total[Shape::kWaves][kColumns / 2] = {};
  for (int block = 0; block < product.blocks; ++block) {
    float weight_scale[Shape::kWaves];
#pragma unroll
    for (int wave = 0; wave < Shape::kWaves; ++wave)
      weight_scale[wave] = __ldg(scales + scales_at[wave] + block);
    WaitFor(barriers.full + cursor.stage, cursor.parity);
    const uint64_t b = OperandDescriptor(SharedAddress(stages.Rows(cursor.stage)));
#pragma unroll
    for (int wave = 0; wave < Shape::kWaves; ++wave) {
      const uint64_t a = OperandDescriptor(SharedAddress(stages.Weights(cursor.stage)) +
                                           wave * kFp8WaveBytes + warpgroup * kFp8Slab * kFp8Block);
      float sums[kColumns / 2];
      BeginProducts();
#pragma unroll
      for (int k = 0; k < kFp8Block / 32; ++k) {
        MultiplyFp8(sums, a + k * (32 >> 4), b + k * (32 >> 4), k > 0);
      }
      CommitProducts();
      WaitForProducts<0>();
      AddScaled<kColumns>(sums, SharedAddress(stages.Scales(cursor.stage) + lane % 4 * 2),
                          weight_scale[wave], total[wave]);
    }
    if (lane == 0) Arrive(barriers.empty + cursor.stage);
    cursor.Advance();
  }
  if constexpr (kGated) {
    static_assert(Shape::kWaves == 2);
    StoreGated<kColumns, Shape>(product, tile, total[0], total[1]);
  } else {
#pragma unroll
    for (int wave = 0; wave < Shape::kWaves; ++wave) {
      StoreSums<kColumns, Shape>(product, tile, wave, total[wave]);
    }
  }
}

template <bool kGated, class Shape>
__device__ __forceinline__ void MultiplyFp8Tiles(const Fp8Product& product,
                                                 const Fp8Stages<Shape>& stages,
                                                 Fp8Barriers<Shape>& barriers) {
  Fp8Cursor<Shape> cursor;
  const int tiles = Fp8Tiles<kGated, Shape>(product);
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const Fp8Tile tile = Fp8TileAt<kGated, Shape>(product, index);
    const auto multiply = [&](auto columns) {
      MultiplyFp8Tile<decltype(columns)::value, kGated, Shape>(product, tile, stages, barriers,
                                                               cursor);
    };
    if (tile.rows <= 16) {
      multiply(std::integral_constant<int, 16>());
    } else if (Shape::kMostRows == 32 || tile.rows <= 32) {
      multiply(std::integral_constant<int, 32>());
    } else if constexpr (Shape::kMostRows > 32) {
      if (tile.rows <= 64) {
        multiply(std::integral_constant<int, 64>());
      } else if (tile.rows <= 80) {
        multiply(std::integral_constant<int, 80>());
      } else if (tile.rows <= 96) {
        multiply(std::integral_constant<int, 96>());
      } else if (tile.rows <= 112) {
        multiply(std::integral_constant<int, 112>());
      } else {
        multiply(std::integral_constant<int, 128>());
      }
    }
  }
}

// Grid: as many blocks as there are multiprocessors. Dynamic shared memory: Shape::kSharedBytes.
template <bool kGated, class Shape>
__global__ void __launch_bounds__(kFp8Threads, 1)
    Fp8ProductKernel(const __grid_constant__ Fp8RowMaps maps, Fp8Product product) {
  extern __shared__ std::byte fp8_shared[];
  __shared__ Fp8Barriers<Shape> barriers;
  auto* first =
      reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(fp8_shared) + 1023) / 1024 * 1024);
  const Fp8Stages<Shape> stages = {first, first + Shape::kStages * Shape::kStageBytes};
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      InitBarrier(barriers.full + i, 1);
      InitBarrier(barriers.empty + i, kFp8Consumers / kWarpSize);
    }
    FenceBarriers();
  }
  __syncthreads();
  WaitForEarlierKernels();
  LetNextKernelBegin();
  if (threadIdx.x >= kFp8Consumers) {
    GiveUpRegisters<24>();
    if (threadIdx.x == kFp8Consumers) BringFp8<kGated, Shape>(product, maps, stages, barriers);
  } else {
    TakeRegisters<240>();
    MultiplyFp8Tiles<kGated, Shape>(product, stages, barriers);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_FP8_TILES_CUH_
