#include "base/check.h"
#include "kernels/cuda/launch.cuh"
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
  constexpr int kThreads = 256;
  WithElement(params.k_stream.dtype, [&](auto element) {
    Launch(KvWriteKernel<decltype(element)>,
           {.grid = static_cast<unsigned>(params.batch.tokens), .threads = kThreads}, context,
           params);
  });
}

}  // namespace troupe
