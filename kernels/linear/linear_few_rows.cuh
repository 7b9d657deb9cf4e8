// Dense products of bf16 for few rows (kernels/linear/weight_stream.cuh).
#ifndef TROUPE_KERNELS_LINEAR_LINEAR_FEW_ROWS_CUH_
#define TROUPE_KERNELS_LINEAR_LINEAR_FEW_ROWS_CUH_

#include "kernels/linear/weight_stream.cuh"

namespace troupe {

struct FewRowsProduct {
  const float* x = nullptr;  // [rows, inputs], rounded to bf16 here; rows at multiples of 16 bytes
  int64_t x_stride = 0;
  int rows = 0;
  const float* bias = nullptr;  // [outputs]; null: none
  float* out = nullptr;         // [rows, outputs]
  int64_t out_stride = 0;
  int inputs = 0;
  int outputs = 0;  // a multiple of kStreamRows
  bool accumulate = false;
  InputNorm norm;
  StreamChoice choice;
};

// A warp's results of a tile: what is added to its sums comes while these are formed.
template <int kColumnTiles>
class FewRowsResults {
 public:
  __device__ __forceinline__ FewRowsResults(const FewRowsProduct& product, int tile)
      : product_(product), tile_(tile) {
    ForEach([&](int n, int part, int row, int output) {
      bias_[n][part] = product.bias == nullptr ? 0.0F : product.bias[output];
      before_[n][part] = product.accumulate ? product.out[row * product.out_stride + output] : 0.0F;
    });
  }

  __device__ __forceinline__ void Store(const float (&sums)[kColumnTiles][4]) const {
    ForEach([&](int n, int part, int row, int output) {
      const float sum = sums[n][part] + bias_[n][part];
      product_.out[row * product_.out_stride + output] =
          product_.accumulate ? before_[n][part] + sum : sum;
    });
  }

 private:
  template <class Visit>
  __device__ __forceinline__ void ForEach(const Visit& visit) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int row = n * kStreamColumns + lane % 4 * 2 + part % 2;
        const int output = tile_ * kStreamRows + lane / 4 + part / 2 * 8;
        if (row < product_.rows) visit(n, part, row, output);
      }
    }
  }

  const FewRowsProduct& product_;
  int tile_;
  float bias_[kColumnTiles][4];
  float before_[kColumnTiles][4];
};

// kFours: see rows_to_shared.cuh. Dynamic shared memory: StreamMemory.
template <int kColumnTiles, int kFours>
__global__ void __launch_bounds__(kStreamThreads, 1)
    FewRowsKernel(const __grid_constant__ CUtensorMap weights, FewRowsProduct product) {
  extern __shared__ __align__(128) std::byte few_rows_shared[];
  const StreamMemory memory(few_rows_shared, product.choice, product.rows, product.inputs);
  const WarpRing ring = memory.Ring(product.choice);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const auto map_of = [&](int /*tile*/) { return &weights; };
  const auto group_of = [](int tile) { return tile; };
  const int tiles = product.outputs / kStreamRows;
  const int blocks = static_cast<int>(gridDim.x);
  const int step = blocks * product.choice.warps;
  const int count = ring.stages() > 0 ? tiles : 0;
  const int first =
      static_cast<int>(threadIdx.x) / kWarpSize * blocks + static_cast<int>(blockIdx.x);
  TileStream stream(ring, first, step, count, product.inputs, map_of, group_of);
  LetNextKernelBegin();
  stream.FillStages();
  const NormWeights<kFours> norm_weights(product.norm, product.inputs);
  WaitForEarlierKernels();
  BringRows<kFours>(product.x, product.x_stride, product.rows, product.inputs, norm_weights,
                    product.norm.eps, memory.x);
  __syncthreads();
  uint32_t x_at[kColumnTiles];
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
    x_at[n] = memory.RowOfX(min(n * kStreamColumns + lane % 8, product.rows - 1), product.inputs);
  }
  for (int tile = first; tile < count; tile += step) {
    const FewRowsResults<kColumnTiles> results(product, tile);
    float sums[kColumnTiles][4] = {};
    stream.Multiply(x_at, sums);
    results.Store(sums);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_LINEAR_FEW_ROWS_CUH_
