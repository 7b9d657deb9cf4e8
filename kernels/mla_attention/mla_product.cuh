// Products of every head's rows with the head's own matrix on the matrix units (mma.sync): what
// brings queries to the latent's space and results back (kernels/mla_attention/mla_attention.h).
//
//     out[t, h, o] = sum over i of bf16(x[t, h, i]) * w_h[o, i],   sums in f32
//
// A warp has 16 tokens and some outputs of a head, and takes both operands from memory itself: a
// decode step's matrices are read once or twice, so that shared memory would only be a detour. The
// warps of a block have tokens next to each other; where inputs are many, a quarter of them each.
//
// Invariant: a sum runs over the inputs in one order, whatever the number of tokens.
#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/linear/linear_matrix_units.cuh"

namespace troupe {

inline constexpr int kHeadProductTokens = 16;  // of a warp
inline constexpr int kHeadProductWarps = 4;
inline constexpr int kHeadProductChunk = 32;   // inputs at a time
inline constexpr int kHeadProductSplit = 512;  // inputs from which on warps share them out

struct HeadProduct {
  const float* x = nullptr;  // rows to 16 bytes
  int64_t x_stride = 0;      // from token to token
  int64_t x_head = 0;        // from head to head
  float* out = nullptr;      // rows to 8 bytes
  int64_t out_stride = 0;
  int64_t out_head = 0;
  const void* const* weights = nullptr;  // [H] bf16 [outputs, inputs]
  int tokens = 0;
  int inputs = 0;   // a multiple of kHeadProductChunk
  int outputs = 0;  // a multiple of 8
  int copied = 0;   // numbers behind the inputs that go, as they are, behind the outputs
};

// A warp's operands of 32 inputs. Products sum over pairs of inputs in any order, as long as both
// operands have the same: each lane takes what lies together.
template <int kTiles>
struct HeadProductChunk {
  float4 x[2][2];   // of two rows, 8 apart
  uint4 w[kTiles];  // of an output each

  __device__ __forceinline__ void LoadRows(const float* const (&rows)[2], int first) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        x[r][step] = *reinterpret_cast<const float4*>(rows[r] + first + step * 4);
      }
    }
  }

  __device__ __forceinline__ void LoadWeights(const CudaBf16* w_row, int64_t inputs,
                                              const bool (&exists)[kTiles], int first) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const CudaBf16* from = exists[tile] ? w_row + tile * 8 * inputs : w_row;
      w[tile] = *reinterpret_cast<const uint4*>(from + first);
    }
  }

  __device__ __forceinline__ void Multiply(float (&sums)[kTiles][4]) const {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const uint2 low = RoundedFour(x[0][step]);
      const uint2 high = RoundedFour(x[1][step]);
      const uint32_t a[4] = {low.x, high.x, low.y, high.y};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        MultiplyAdd(sums[tile], a, step == 0 ? w[tile].x : w[tile].z,
                    step == 0 ? w[tile].y : w[tile].w);
      }
    }
  }
};

template <int kTiles>
__device__ __forceinline__ void StoreHeadProduct(const HeadProduct& product, const int (&token)[2],
                                                 int head, int output,
                                                 const float (&sums)[kTiles][4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (token[r] >= product.tokens) continue;
    float* out = product.out + token[r] * product.out_stride + head * product.out_head + output +
                 threadIdx.x % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (output + tile * 8 >= product.outputs) continue;
      *reinterpret_cast<float2*>(out + tile * 8) = {sums[tile][2 * r], sums[tile][2 * r + 1]};
    }
  }
}

// Adds the sums of a block's warps, in order, and stores them.
template <int kTiles>
__device__ __forceinline__ void StoreQuarters(const HeadProduct& product, const int (&token)[2],
                                              int head, int output,
                                              const float (&sums)[kTiles][4]) {
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  const auto warp = static_cast<int>(threadIdx.x / kWarpSize);
  __shared__ float4 parts[kHeadProductWarps][kTiles][kWarpSize];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    parts[warp][tile][lane] = {sums[tile][0], sums[tile][1], sums[tile][2], sums[tile][3]};
  }
  __syncthreads();
  for (int tile = warp; tile < kTiles; tile += kHeadProductWarps) {
    float4 sum = parts[0][tile][lane];
#pragma unroll
    for (int part = 1; part < kHeadProductWarps; ++part) {
      const float4 next = parts[part][tile][lane];
      sum = {__fadd_rn(sum.x, next.x), __fadd_rn(sum.y, next.y), __fadd_rn(sum.z, next.z),
             __fadd_rn(sum.w, next.w)};
    }
    const float one[1][4] = {{sum.x, sum.y, sum.z, sum.w}};
    StoreHeadProduct(product, token, head, output + tile * 8, one);
  }
}

// What is copied behind the outputs, of `tokens` tokens: all blocks that have them take a share.
__device__ __forceinline__ void CopyBehind(const HeadProduct& product, int first_token, int tokens,
                                           int head) {
  const int end = min(product.tokens, first_token + tokens);
  const auto warp = static_cast<int>(blockIdx.z * kHeadProductWarps + threadIdx.x / kWarpSize);
  const auto warps = static_cast<int>(gridDim.z) * kHeadProductWarps;
  for (int token = first_token + warp; token < end; token += warps) {
    const float* from =
        product.x + token * product.x_stride + head * product.x_head + product.inputs;
    float* to =
        product.out + token * product.out_stride + head * product.out_head + product.outputs;
    for (int c = static_cast<int>(threadIdx.x % kWarpSize); c < product.copied; c += kWarpSize) {
      to[c] = from[c];
    }
  }
}

// Grid: 16 tokens in x, for each warp or, with kSplit, for all; heads in y, kTiles * 8 outputs in
// z.
template <int kTiles, bool kSplit>
__global__ void __launch_bounds__(kHeadProductWarps* kWarpSize)
    HeadProductKernel(const __grid_constant__ HeadProduct product) {
  constexpr int kAtOnce = kTiles <= 4 ? 4 : 1;  // chunks whose loads are under way at once
  constexpr int kTokenTiles = kSplit ? 1 : kHeadProductWarps;
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  const auto warp = static_cast<int>(threadIdx.x / kWarpSize);
  const auto head = static_cast<int>(blockIdx.y);
  const int block_token = static_cast<int>(blockIdx.x) * kTokenTiles * kHeadProductTokens;
  const int first_token = block_token + (kSplit ? 0 : warp * kHeadProductTokens);
  const int first_output = static_cast<int>(blockIdx.z) * kTiles * 8;
  const int share = kSplit ? product.inputs / kHeadProductWarps : product.inputs;
  const int first_input = kSplit ? warp * share : 0;
  const int64_t inputs = product.inputs;
  int token[2];
  const float* rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    token[r] = first_token + lane / 4 + r * 8;
    rows[r] = product.x + min(token[r], product.tokens - 1) * product.x_stride +
              head * product.x_head + first_input + lane % 4 * 8;
  }
  bool exists[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    exists[tile] = first_output + tile * 8 < product.outputs;
  }
  const CudaBf16* w_row = static_cast<const CudaBf16*>(product.weights[head]) +
                          (first_output + lane / 4) * inputs + first_input + lane % 4 * 8;
  HeadProductChunk<kTiles> chunks[kAtOnce];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const int at = i * kHeadProductChunk;
    if (at < share) chunks[i].LoadWeights(w_row, inputs, exists, at);
  }
  WaitForEarlierKernels();
  LetNextKernelBegin();
  float sums[kTiles][4] = {};
  for (int first = 0; first < share; first += kAtOnce * kHeadProductChunk) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kHeadProductChunk;
      if (at >= share) continue;
      if (first > 0) chunks[i].LoadWeights(w_row, inputs, exists, at);
      chunks[i].LoadRows(rows, at);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * kHeadProductChunk < share) chunks[i].Multiply(sums);
    }
  }
  CopyBehind(product, block_token, kTokenTiles * kHeadProductTokens, head);
  if constexpr (kSplit) {
    StoreQuarters(product, token, head, first_output, sums);
  } else {
    StoreHeadProduct(product, token, head, first_output, sums);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_
