#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/head_norm_rope/head_norm_rope_cuda.h"
#include "kernels/kv_write/kv_write_cuda.h"
#include "kernels/qkv_write/qkv_write.cuh"
#include "kernels/qkv_write/qkv_write_coded.cuh"
#include "kernels/qkv_write/qkv_write_cuda.h"

namespace troupe {

void QkvWriteCuda(const QkvWriteParams& params, const CudaContext& context) {
  CHECK(params.kv.k.data == params.k.x.data) << "other keys are written than rotated";
  CHECK_EQ(params.k.heads, params.kv.k_stream.kv_heads);
  CheckKvWrite(params.kv);
  QkvWriteParams resolved = params;
  resolved.q = ResolvedHeadNormRope(params.q);
  resolved.k = ResolvedHeadNormRope(params.k);
  const int64_t warps = params.q.x.rows * (params.q.heads + params.kv.k_stream.kv_heads +
                                           params.kv.v_stream.kv_heads);
  if (warps == 0) return;
  const auto blocks = static_cast<unsigned>(CeilDiv(warps * kWarpSize, kQkvWriteThreads));
  if (params.kv.k_stream.dtype == DType::kE4M3) {
    Launch(QkvWriteCodedKernel,
           {.grid = static_cast<unsigned>(CeilDiv(warps * kWarpSize, kCodedWriteThreads)),
            .threads = kCodedWriteThreads},
           context, resolved);
    return;
  }
  const auto takes = [&](int own) {
    return RotatesWhole(resolved.q, own) && RotatesWhole(resolved.k, own) &&
           params.kv.v_stream.head_dim == own * kWarpSize;
  };
  const bool alike = resolved.q.inverse_frequency == resolved.k.inverse_frequency &&
                     resolved.q.position == resolved.k.position &&
                     resolved.q.amplitude == resolved.k.amplitude;
  const int64_t tokens = params.q.x.rows;
  WithElement(params.kv.k_stream.dtype, [&](auto element) {
    using Element = decltype(element);
    if (tokens >= kLeastTokensWithOwnBlocks && alike && (takes(4) || takes(2))) {
      Launch(takes(4) ? QkvWriteTokensKernel<Element, 4> : QkvWriteTokensKernel<Element, 2>,
             {.grid = static_cast<unsigned>(tokens), .threads = kQkvWriteThreads}, context,
             resolved);
      return;
    }
    Launch(takes(4)   ? QkvWriteWholeKernel<Element, 4>
           : takes(2) ? QkvWriteWholeKernel<Element, 2>
                      : QkvWriteKernel<Element>,
           {.grid = blocks, .threads = kQkvWriteThreads}, context, resolved);
  });
}

}  // namespace troupe
