#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_products.cuh"
#include "kernels/moe_route/few_tokens.cuh"
#include "kernels/moe_route/moe_route_cuda.h"

namespace troupe {
namespace {

// Beyond these the product reads the router's rows too often.
constexpr int kMostFewTokens = 16;
static_assert(kMostFewTokens <= kArrivalCounters);

bool IsForFewTokens(const MoeRouteParams& params, const CudaMatrix& router) {
  return params.x.rows <= kMostFewTokens &&
         router.precision() == Precision::kF32 && router.inputs() % kRouteUnit == 0 &&
         RowsAligned(params.x);
}

void RouteFewTokens(const MoeRouteParams& params, const CudaMatrix& router, size_t shared_bytes,
                    const CudaContext& context) {
  CHECK_EQ(router.inputs(), params.x.cols);
  CHECK_EQ(router.outputs(), params.logits.cols);
  CHECK_EQ(params.x.rows, params.logits.rows);
  const FewTokensRoute few = {.route = params,
                              .x = static_cast<const float*>(params.x.data),
                              .x_stride = params.x.stride,
                              .router = router.data(),
                              .router_bias = params.router_bias,
                              .inputs = static_cast<int>(router.inputs()),
                              .arrived = context.arrivals};
  const dim3 grid(static_cast<unsigned>(CeilDiv(router.outputs(), kRouteWarps)),
                  static_cast<unsigned>(params.x.rows));
  WithElement(router.dtype(), [&](auto element) {
    Launch(FewTokensRouteKernel<decltype(element)>,
           {.grid = grid,
            .threads = kRouteWarps * kWarpSize,
            .shared_bytes = static_cast<int64_t>(shared_bytes)},
           context, few);
  });
}

}  // namespace

void MoeRouteCuda(const MoeRouteParams& params, const CudaContext& context) {
  CHECK_LE(params.top_k, params.logits.cols);
  CHECK_EQ(params.logits.cols % params.groups, 0);
  CHECK_LE(params.groups_chosen, params.groups);
  const auto tokens = static_cast<unsigned>(params.logits.rows);
  if (tokens == 0) return;
  const size_t floats = 2 * static_cast<size_t>(params.logits.cols) + params.groups;
  const size_t shared_bytes = floats * sizeof(float);
  if (params.router != nullptr && IsForFewTokens(params, AsCuda(params.router))) {
    return RouteFewTokens(params, AsCuda(params.router), shared_bytes, context);
  }
  if (params.router != nullptr) {
    LinearCuda({params.x, params.router, params.logits, /*accumulate=*/false, params.router_bias},
               context);
  }
  Launch(MoeRouteKernel,
         {.grid = tokens,
          .threads = kWarpSize,
          .shared_bytes = static_cast<int64_t>(shared_bytes)},
         context, params);
}

}  // namespace troupe
