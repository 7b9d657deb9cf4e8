// Products of bf16 on the matrix units (mma.sync), sums in f32: dense layers and experts alike.
//
// A block of 4 warps forms kRowTiles * 16 rows of 128 outputs; each warp has 32 of the outputs.
// Operands come through shared memory, kStages steps of 64 inputs ahead.
//
// Invariant: an output is the sum over the inputs in steps of 16, in order, whatever the tile: the
// same bits for a row wherever it stands, and however many rows there are.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_MATRIX_UNITS_CUH_
#define TROUPE_KERNELS_LINEAR_LINEAR_MATRIX_UNITS_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/grouped.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"

namespace troupe {

inline constexpr int kUnitOutputs = 128;  // weight rows of a block
inline constexpr int kUnitInputs = 64;    // of a stage: rows of 128 bytes
inline constexpr int kUnitStages = 4;
inline constexpr int kUnitThreads = 128;
inline constexpr int kChunk = 8;                              // elements of 16 bytes
inline constexpr int kRowChunks = kUnitInputs / kChunk;       // of a row in a stage
inline constexpr int kRowsAPass = kUnitThreads / kRowChunks;  // that all threads copy at once

struct UnitProduct {
  GroupedRows rows;
  const CudaBf16* x = nullptr;
  int64_t x_stride = 0;  // a multiple of kChunk, as are `inputs`
  int64_t inputs = 0;
  int64_t outputs = 0;  // columns of `out`; with kGated the weights have twice as many rows
  void* out = nullptr;  // f32; with kGated bf16: activation(gate, up)
  int64_t out_stride = 0;
  bool accumulate = false;
  Activation activation;  // with kGated
};

inline constexpr int64_t UnitSharedBytes(int row_tiles) {
  return int64_t{kUnitStages} * (row_tiles * 16 + kUnitOutputs) * kUnitInputs * 2;
}

// Chunks of a row trade places with the row's number, so that neither the copies nor the loads of 8
// rows at once meet in a bank.
__device__ __forceinline__ int SwizzledChunk(int row, int chunk) {
  return row * kRowChunks + (chunk ^ (row % kRowChunks));
}

__device__ __forceinline__ void LoadMatrices(uint32_t (&to)[4], const uint4* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(SharedAddress(from))
               : "memory");
}

__device__ __forceinline__ void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The weight row that row `row` of a block's tile holds; -1 beyond the last. With kGated each
// warp's 32 rows are 16 of the gate and the same 16 of `up`, so that both end up in one thread.
template <bool kGated>
__device__ __forceinline__ int64_t WeightRow(const UnitProduct& product, int row) {
  if constexpr (!kGated) {
    const int64_t output = static_cast<int64_t>(blockIdx.x) * kUnitOutputs + row;
    return output < product.outputs ? output : -1;
  } else {
    const int64_t output =
        static_cast<int64_t>(blockIdx.x) * (kUnitOutputs / 2) + row / 32 * 16 + row % 16;
    if (output >= product.outputs) return -1;
    return row % 32 < 16 ? output : product.outputs + output;
  }
}

// What a thread copies: one chunk of a few rows of x and of the weights, stage after stage.
template <int kRowTiles, bool kGated>
struct UnitCopies {
  static constexpr int kXRows = kRowTiles * 16 / kRowsAPass;
  static constexpr int kWRows = kUnitOutputs / kRowsAPass;

  const CudaBf16* x[kXRows];
  const CudaBf16* w[kWRows];  // null: no such row
  int row;
  int chunk;

  __device__ UnitCopies(const UnitProduct& product, const RowTile& tile)
      : row(static_cast<int>(threadIdx.x) / kRowChunks),
        chunk(static_cast<int>(threadIdx.x) % kRowChunks) {
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      const int at = row + i * kRowsAPass;
      x[i] = at >= tile.count
                 ? nullptr
                 : product.x + SourceRow(product.rows, tile.first + at) * product.x_stride +
                       chunk * kChunk;
    }
#pragma unroll
    for (int i = 0; i < kWRows; ++i) {
      const int64_t weight_row = WeightRow<kGated>(product, row + i * kRowsAPass);
      w[i] = weight_row < 0 ? nullptr
                            : static_cast<const CudaBf16*>(tile.weights) +
                                  weight_row * product.inputs + chunk * kChunk;
    }
  }

  __device__ void Start(const UnitProduct& product, int64_t first_input, uint4* x_stage,
                        uint4* w_stage) const {
    const bool inside = first_input + chunk * kChunk < product.inputs;
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      const bool valid = inside && x[i] != nullptr;
      CopyAsync16(x_stage + SwizzledChunk(row + i * kRowsAPass, chunk),
                  valid ? x[i] + first_input : product.x, valid);
    }
#pragma unroll
    for (int i = 0; i < kWRows; ++i) {
      const bool valid = inside && w[i] != nullptr;
      CopyAsync16(w_stage + SwizzledChunk(row + i * kRowsAPass, chunk),
                  valid ? w[i] + first_input : product.x, valid);
    }
  }
};

// Adds one stage's products: [row tiles][4 groups of 8 outputs][fragment].
template <int kRowTiles>
__device__ __forceinline__ void MultiplyStage(const uint4* x_stage, const uint4* w_stage,
                                              float (&sums)[kRowTiles][4][4]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int step = 0; step < kUnitInputs / 16; ++step) {
    uint32_t b[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp * 32 + half * 16 + lane % 8 + lane / 16 * 8;
      LoadMatrices(b[half], w_stage + SwizzledChunk(row, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (int tile = 0; tile < kRowTiles; ++tile) {
      uint32_t a[4];
      LoadMatrices(a, x_stage + SwizzledChunk(tile * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
      for (int group = 0; group < 4; ++group) {
        MultiplyAdd(sums[tile][group], a, b[group / 2][group % 2 * 2],
                    b[group / 2][group % 2 * 2 + 1]);
      }
    }
  }
}

template <int kRowTiles, bool kGated>
__device__ __forceinline__ void StoreSums(const UnitProduct& product, const RowTile& tile,
                                          const float (&sums)[kRowTiles][4][4]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int row_tile = 0; row_tile < kRowTiles; ++row_tile) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = row_tile * 16 + part / 2 * 8 + lane / 4;
      if (row >= tile.count) continue;
      const int64_t row_at = static_cast<int64_t>(tile.first + row) * product.out_stride;
      const int within = lane % 4 * 2 + part % 2;
      if constexpr (kGated) {
#pragma unroll
        for (int group = 0; group < 2; ++group) {
          const int64_t col = static_cast<int64_t>(blockIdx.x) * (kUnitOutputs / 2) + warp * 16 +
                              group * 8 + within;
          if (col >= product.outputs) continue;
          const float gate = sums[row_tile][group][part] + BiasOf(tile, col);
          const float up = sums[row_tile][group + 2][part] + BiasOf(tile, product.outputs + col);
          static_cast<CudaBf16*>(product.out)[row_at + col] =
              Narrow<CudaBf16>(Activate(product.activation, gate, up));
        }
      } else {
#pragma unroll
        for (int group = 0; group < 4; ++group) {
          const int64_t col =
              static_cast<int64_t>(blockIdx.x) * kUnitOutputs + warp * 32 + group * 8 + within;
          if (col >= product.outputs) continue;
          float* to = static_cast<float*>(product.out) + row_at + col;
          const float sum = sums[row_tile][group][part] + BiasOf(tile, col);
          *to = product.accumulate ? *to + sum : sum;
        }
      }
    }
  }
}

// Grid: groups of outputs in x, tiles of rows in y. Dynamic shared memory: UnitSharedBytes.
template <int kRowTiles, bool kGated>
__global__ void __launch_bounds__(kUnitThreads) UnitProductKernel(UnitProduct product) {
  extern __shared__ uint4 unit_shared[];
  constexpr int kXChunks = kRowTiles * 16 * kRowChunks;
  constexpr int kWChunks = kUnitOutputs * kRowChunks;
  uint4* x_stages = unit_shared;
  uint4* w_stages = unit_shared + kUnitStages * kXChunks;
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const RowTile tile = FindTile(product.rows, static_cast<int>(blockIdx.y), kRowTiles * 16);
  if (tile.count == 0) return;
  const UnitCopies<kRowTiles, kGated> copies(product, tile);
  const int64_t steps = (product.inputs + kUnitInputs - 1) / kUnitInputs;
  const auto start = [&](int64_t step) {
    const auto stage = static_cast<int>(step % kUnitStages);
    if (step < steps) {
      copies.Start(product, step * kUnitInputs, x_stages + stage * kXChunks,
                   w_stages + stage * kWChunks);
    }
    CommitCopies();  // an empty group keeps the count of groups
  };
  for (int64_t step = 0; step < kUnitStages - 1; ++step) start(step);
  float sums[kRowTiles][4][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    WaitForCopies<kUnitStages - 2>();
    __syncthreads();
    start(step + kUnitStages - 1);
    const auto stage = static_cast<int>(step % kUnitStages);
    MultiplyStage<kRowTiles>(x_stages + stage * kXChunks, w_stages + stage * kWChunks, sums);
  }
  WaitForCopies<0>();
  StoreSums<kRowTiles, kGated>(product, tile, sums);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_MATRIX_UNITS_CUH_
