// Products in f32 on the ordinary multipliers: for f32 models, for routers, and for shapes that the
// matrix units do not take.
//
// A warp forms 4 outputs of up to 8 rows. Its lanes share out the inputs, so each weight is read
// once for all rows and, with one row, the weights stream through whole warps.
//
// Invariant: lane l sums the inputs l, l + 32, ... (in units of kUnit) in order, then lanes are
// added pairwise: the same for a row wherever it stands, and however many rows there are.
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_EXACT_CUH_
#define TROUPE_KERNELS_LINEAR_LINEAR_EXACT_CUH_

#include "kernels/cuda/grouped.cuh"
#include "kernels/cuda/math.cuh"

namespace troupe {

inline constexpr int kExactOutputs = 4;  // of a warp
inline constexpr int kExactWarps = 4;    // of a block, each with outputs of its own

struct ExactProduct {
  GroupedRows rows;
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t inputs = 0;
  int64_t outputs = 0;
  bool accumulate = false;
  // Many products of the same shape, one after another in x and out: [grid's z], null: one.
  const void* const* batch_weights = nullptr;
  int64_t x_batch = 0;  // floats from one to the next
  int64_t out_batch = 0;
};

// Grid: groups of kExactWarps * kExactOutputs outputs in x, tiles of kRows rows in y, products of a
// batch in z.
template <class Weight, int kUnit, int kRows, bool kRoundX>
__global__ void __launch_bounds__(kExactWarps* kWarpSize) ExactProductKernel(ExactProduct product) {
  RowTile tile = FindTile(product.rows, static_cast<int>(blockIdx.y), kRows);
  if (product.batch_weights != nullptr) {
    tile.weights = product.batch_weights[blockIdx.z];
    product.x += blockIdx.z * product.x_batch;
    product.out += blockIdx.z * product.out_batch;
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t first_output =
      (static_cast<int64_t>(blockIdx.x) * kExactWarps + warp) * kExactOutputs;
  if (tile.count == 0 || first_output >= product.outputs) return;

  // Rows and outputs beyond the last repeat it; their sums are dropped.
  const Weight* w[kExactOutputs];
  const float* x[kRows];
#pragma unroll
  for (int o = 0; o < kExactOutputs; ++o) {
    const int64_t output = min(first_output + o, product.outputs - 1);
    w[o] = static_cast<const Weight*>(tile.weights) + output * product.inputs;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = tile.first + min(r, tile.count - 1);
    x[r] = product.x + SourceRow(product.rows, row) * product.x_stride;
  }
  float sums[kRows][kExactOutputs] = {};
  // Units whose loads are under way together, while registers last.
  constexpr int kAhead = sizeof(Weight) == 2 ? 4 : 2;
  constexpr int kStep = kWarpSize * kUnit;
  for (int64_t begin = static_cast<int64_t>(lane) * kUnit; begin < product.inputs;
       begin += kAhead * kStep) {
    float weights[kAhead][kExactOutputs][kUnit];
    float values[kAhead][kRows][kUnit];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t at = min(begin + i * kStep, product.inputs - kUnit);
#pragma unroll
      for (int o = 0; o < kExactOutputs; ++o) LoadElements<kUnit>(w[o] + at, weights[i][o]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) LoadElements<kUnit>(x[r] + at, values[i][r]);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i * kStep >= product.inputs) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int u = 0; u < kUnit; ++u) {
          const float value = kRoundX ? RoundedToBf16(values[i][r][u]) : values[i][r][u];
#pragma unroll
          for (int o = 0; o < kExactOutputs; ++o) {
            sums[r][o] = __fmaf_rn(weights[i][o][u], value, sums[r][o]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int o = 0; o < kExactOutputs; ++o) {
      float sum = WarpSum(sums[r][o]);
      const int64_t output = first_output + o;
      if (lane != 0 || r >= tile.count || output >= product.outputs) continue;
      sum += BiasOf(tile, output);
      float* to = product.out + (tile.first + r) * product.out_stride + output;
      *to = product.accumulate ? *to + sum : sum;
    }
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_EXACT_CUH_
