// Products of every head's rows with the head's own matrix on the matrix units (mma.sync): what
// brings queries to the latent's space and results back (kernels/mla_attention/mla_attention.h).
//
//     out[t, h, o] = sum over i of bf16(x[t, h, i]) * w_h[o, i],   sums in f32
//
// A warp has 16 tokens and some outputs of a head, and takes both operands from memory itself: a
// decode step's matrices are read once or twice, so that shared memory would only be a detour.
//
// Invariant: a sum runs over the inputs in one order, whatever the number of tokens.
#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/linear/linear_matrix_units.cuh"

namespace troupe {

inline constexpr int kHeadProductTokens = 16;  // of a warp
inline constexpr int kHeadProductWarps = 2;
inline constexpr int kHeadProductChunk = 32;  // inputs at a time

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

  __device__ __forceinline__ void Load(const float* const (&rows)[2], const CudaBf16* w_row,
                                       int64_t inputs, const bool (&exists)[kTiles], int first) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        x[r][step] = *reinterpret_cast<const float4*>(rows[r] + first + step * 4);
      }
    }
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

// Grid: 16 tokens in x, heads in y, kTiles * 8 outputs for each warp in z.
template <int kTiles>
__global__ void __launch_bounds__(kHeadProductWarps* kWarpSize)
    HeadProductKernel(const __grid_constant__ HeadProduct product) {
  constexpr int kAtOnce = kTiles <= 2 ? 4 : 1;  // chunks whose loads are under way at once
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  const auto warp = static_cast<int>(threadIdx.x / kWarpSize);
  const auto head = static_cast<int>(blockIdx.y);
  const int first_token = static_cast<int>(blockIdx.x) * kHeadProductTokens;
  const int first_output = (static_cast<int>(blockIdx.z) * kHeadProductWarps + warp) * kTiles * 8;
  const auto* weights = static_cast<const CudaBf16*>(product.weights[head]);
  const int64_t inputs = product.inputs;
  int token[2];
  const float* rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    token[r] = first_token + lane / 4 + r * 8;
    rows[r] = product.x + min(token[r], product.tokens - 1) * product.x_stride +
              head * product.x_head + lane % 4 * 8;
  }
  bool exists[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    exists[tile] = first_output + tile * 8 < product.outputs;
  }
  const CudaBf16* w_row =
      weights + (exists[0] ? first_output + lane / 4 : 0) * inputs + lane % 4 * 8;
  WaitForEarlierKernels();
  LetNextKernelBegin();
  float sums[kTiles][4] = {};
  for (int first = 0; first < product.inputs; first += kAtOnce * kHeadProductChunk) {
    HeadProductChunk<kTiles> chunks[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kHeadProductChunk;
      if (at < product.inputs) chunks[i].Load(rows, w_row, inputs, exists, at);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * kHeadProductChunk < product.inputs) chunks[i].Multiply(sums);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (token[r] >= product.tokens) continue;
    float* out = product.out + token[r] * product.out_stride + head * product.out_head;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (!exists[tile]) continue;
      *reinterpret_cast<float2*>(out + first_output + tile * 8 + lane % 4 * 2) = {
          sums[tile][2 * r], sums[tile][2 * r + 1]};
    }
  }
  if (blockIdx.z > 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < kHeadProductTokens * product.copied;
       i += kHeadProductWarps * kWarpSize) {
    const int64_t row = first_token + i / product.copied;
    const int c = i % product.copied;
    if (row >= product.tokens) break;
    product.out[row * product.out_stride + head * product.out_head + product.outputs + c] =
        product.x[row * product.x_stride + head * product.x_head + inputs + c];
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_PRODUCT_CUH_
