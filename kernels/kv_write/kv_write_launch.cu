#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/kv_write/kv_codes.cuh"
#include "kernels/kv_write/kv_write.cuh"
#include "kernels/kv_write/kv_write_cuda.h"

namespace troupe {

void CheckKvWrite(const KvWriteParams& params) {
  const KvStream& k = params.k_stream;
  const KvStream& v = params.v_stream;
  CHECK_EQ(params.k.cols, static_cast<int64_t>(k.kv_heads) * k.head_dim);
  CHECK_EQ(params.v.cols, static_cast<int64_t>(v.kv_heads) * v.head_dim);
  CHECK(k.dtype == v.dtype) << "keys and values of different dtypes";
}

void KvWriteCuda(const KvWriteParams& params, const CudaContext& context) {
  CheckKvWrite(params);
  if (params.batch.tokens == 0) return;
  if (params.k_stream.dtype == DType::kE4M3) {
    const int64_t warps = static_cast<int64_t>(params.batch.tokens) *
                          (params.k_stream.kv_heads + params.v_stream.kv_heads);
    Launch(KvWriteCodedKernel,
           {.grid = static_cast<unsigned>(CeilDiv(warps * kWarpSize, kCodedWriteThreads)),
            .threads = kCodedWriteThreads},
           context, params);
    return;
  }
  constexpr int kThreads = 256;
  WithElement(params.k_stream.dtype, [&](auto element) {
    Launch(KvWriteKernel<decltype(element)>,
           {.grid = static_cast<unsigned>(params.batch.tokens), .threads = kThreads}, context,
           params);
  });
}

}  // namespace troupe
