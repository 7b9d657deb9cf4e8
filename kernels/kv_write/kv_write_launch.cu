#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/kv_write/kv_codes.cuh"
#include "kernels/kv_write/kv_write.cuh"
#include "kernels/kv_write/kv_write_cuda.h"

namespace troupe {
namespace {

// A warp for each head of a token: keys' and then values'.
__global__ void __launch_bounds__(kCodedWriteThreads) KvWriteCodedKernel(KvWriteParams params) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int heads = params.k_stream.kv_heads + params.v_stream.kv_heads;
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kCodedWriteThreads + threadIdx.x) / kWarpSize;
  if (item >= static_cast<int64_t>(params.batch.tokens) * heads) return;
  const int64_t token = item / heads;
  const auto place = static_cast<int>(item % heads);
  const bool is_key = place < params.k_stream.kv_heads;
  const KvStream& stream = is_key ? params.k_stream : params.v_stream;
  const Tensor& tensor = is_key ? params.k : params.v;
  const int head = is_key ? place : place - params.k_stream.kv_heads;
  const float* from =
      static_cast<const float*>(tensor.data) + token * tensor.stride + head * stream.head_dim;
  WriteCodedRow(from, stream, params.tables, params.batch.slot[params.batch.token_row[token]],
                params.batch.position[token], head);
}

}  // namespace

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
