#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/nsa_compress/nsa_compress.cuh"
#include "kernels/nsa_compress/nsa_compress_cuda.h"

namespace troupe {

void NsaCompressCuda(const NsaCompressParams& params, const CudaContext& context) {
  const NsaSizes& sizes = params.sizes;
  const KvStream& k = params.k;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  CHECK_EQ(params.raw_k.head_dim, k.head_dim);
  CHECK_EQ(params.raw_v.head_dim, k.head_dim);
  CHECK_EQ(params.v.head_dim, k.head_dim);
  CHECK_EQ(params.raw_k.kv_heads, k.kv_heads);
  CHECK(params.raw_v.dtype == params.raw_k.dtype && params.v.dtype == k.dtype)
      << "keys and values of different dtypes";
  if (params.batch.tokens == 0) return;
  const int64_t shared_bytes = CompressSharedBytes(sizes.compress_block, k.head_dim);
  const dim3 grid(static_cast<unsigned>(params.batch.tokens), static_cast<unsigned>(k.kv_heads), 2);
  WithElement(params.raw_k.dtype, [&](auto raw) {
    WithElement(k.dtype, [&](auto element) {
      auto* kernel = NsaCompressKernel<decltype(raw), decltype(element)>;
      AllowSharedMemory(kernel, shared_bytes, context.errors);
      kernel<<<grid, kCompressThreads, shared_bytes, context.stream>>>(params);
    });
  });
}

}  // namespace troupe
