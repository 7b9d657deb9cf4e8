// Device code of kernels/nsa_compress/nsa_compress.h: one block of threads a token, KV head and
// kind (keys or values), a thread a channel. Blocks whose token ends no entry do nothing. For any
// sizes; kernels/nsa_compress/nsa_compress_shared.cuh has the usual ones.
#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUH_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUH_

#include "kernels/cuda/pages.cuh"
#include "kernels/nsa_compress/nsa_compress.h"

namespace troupe {

inline constexpr int kCompressThreads = 128;
inline constexpr int kCompressRows = 16;  // raw tokens whose products a thread forms at once

inline int64_t CompressSharedBytes(int block, int head_dim) {
  // z, u (later the logits) and what is between the two products: [block, D] each.
  return 3 * int64_t{block} * head_dim * static_cast<int64_t>(sizeof(float));
}

// out[m][channel] = activation(sum over c of w[channel][c] * x[m][c]) for `rows` rows.
template <class Activation>
__device__ void TimesWeights(const float* w, const float* x, float* out, int rows, int head_dim,
                             const Activation& activation) {
  for (int channel = static_cast<int>(threadIdx.x); channel < head_dim;
       channel += kCompressThreads) {
    for (int first = 0; first < rows; first += kCompressRows) {
      float sums[kCompressRows] = {};
      for (int c = 0; c < head_dim; ++c) {
        const float weight = w[static_cast<int64_t>(channel) * head_dim + c];
#pragma unroll
        for (int m = 0; m < kCompressRows; ++m) {
          if (first + m < rows) {
            sums[m] = __fmaf_rn(weight, x[(first + m) * head_dim + c], sums[m]);
          }
        }
      }
#pragma unroll
      for (int m = 0; m < kCompressRows; ++m) {
        if (first + m < rows) out[(first + m) * head_dim + channel] = activation(sums[m]);
      }
    }
  }
}

// The softmax over the rows' logits, channel by channel, applied to z.
__device__ __forceinline__ float WeightedMean(const float* logits, const float* z, int rows,
                                              int head_dim, int channel) {
  float largest = -INFINITY;
  for (int m = 0; m < rows; ++m) largest = fmaxf(largest, logits[m * head_dim + channel]);
  float sum = 0;
  float weighted = 0;
  for (int m = 0; m < rows; ++m) {
    const float weight = expf(logits[m * head_dim + channel] - largest);
    sum += weight;
    weighted = __fmaf_rn(weight, z[m * head_dim + channel], weighted);
  }
  return weighted / sum;
}

// Grid: tokens in x, KV heads in y, keys and then values in z. Dynamic shared memory:
// CompressSharedBytes. `Raw` and `Element` are what the raw and the compressed pages hold.
template <class Raw, class Element>
__global__ void __launch_bounds__(kCompressThreads) NsaCompressKernel(NsaCompressParams params) {
  extern __shared__ float compress_shared[];
  __shared__ float warp_sums[kCompressThreads / kWarpSize];
  const NsaSizes& sizes = params.sizes;
  const int64_t token = blockIdx.x;
  const auto head = static_cast<int>(blockIdx.y);
  const bool is_key = blockIdx.z == 0;
  const int last = params.batch.position[token];
  const int first = last + 1 - sizes.compress_block;
  if (first < 0 || first % sizes.compress_stride != 0) return;

  const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
  const KvStream& raw = is_key ? params.raw_k : params.raw_v;
  const KvStream& stream = is_key ? params.k : params.v;
  const NsaPhi& phi = is_key ? params.phi_k : params.phi_v;
  const int head_dim = stream.head_dim;
  const int rows = sizes.compress_block;
  float* z = compress_shared;
  float* u = z + rows * head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < rows * head_dim; i += kCompressThreads) {
    const Raw* from = EntryAt<Raw>(raw, params.raw_tables, slot, first + i / head_dim, head);
    z[i] = Widen(from[i % head_dim]);
    u[i] = z[i] + phi.position[i];
  }
  __syncthreads();
  float* inner = u + rows * head_dim;
  TimesWeights(phi.w1, u, inner, rows, head_dim, [](float x) { return Silu(x); });
  __syncthreads();
  TimesWeights(phi.w2, inner, u, rows, head_dim, [](float x) { return x; });
  __syncthreads();
  float squares = 0;
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kCompressThreads) {
    const float mean = WeightedMean(u, z, rows, head_dim, c);
    inner[c] = mean;
    squares = __fmaf_rn(mean, mean, squares);
  }
  squares = BlockSum(squares, warp_sums);
  const float scale = 1.0F / sqrtf(squares / static_cast<float>(head_dim) + params.eps);
  auto* to = const_cast<Element*>(
      EntryAt<Element>(stream, params.tables, slot, last / sizes.compress_stride, head));
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kCompressThreads) {
    to[c] = Narrow<Element>(is_key ? inner[c] * scale * params.k_norm[c] : inner[c]);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_CUH_
