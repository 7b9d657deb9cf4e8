#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_products.cuh"
#include "kernels/moe_route/moe_route_cuda.h"
#include "kernels/moe_route/route_units.cuh"

namespace troupe {
namespace {

// Fewer experts a block while that leaves multiprocessors idle, but no more blocks for all experts
// than a cluster may have.
constexpr int kMostTokensSpread = 128;
constexpr int kManyExpertTiles = 4;
constexpr int kMostClusterBlocks = 8;

int ExpertTiles(int64_t rows, int64_t experts) {
  const int64_t tiles = experts / kRouteExpertTile;
  if (rows > kMostTokensSpread) return tiles % kManyExpertTiles == 0 ? kManyExpertTiles : 1;
  const bool pairs_make_cluster =
      tiles % 2 == 0 && tiles > kMostClusterBlocks && tiles <= 2 * kMostClusterBlocks;
  return pairs_make_cluster ? 2 : 1;
}

bool IsForUnits(const MoeRouteParams& params, const CudaMatrix& router) {
  return router.dtype() == DType::kBf16 && router.precision() == Precision::kF32 &&
         router.inputs() % kRouteInputs == 0 && router.outputs() <= kMostRoutedExperts &&
         router.outputs() % kRouteExpertTile == 0 && RowsAligned(params.x);
}

// Whether these kernels norm rows as they are asked to.
bool UnitsMayNorm(const MoeRouteParams& params) {
  return params.norm.weight == nullptr ||
         (params.x.rows <= kMostTokensSpread && params.x.cols <= kMostNormedCols &&
          params.x.cols >= kRouteWarps * kRouteInputs &&
          reinterpret_cast<uintptr_t>(params.norm.weight) % 16 == 0);
}

// True where the experts are chosen too.
bool RouteOnUnits(const MoeRouteParams& params, const CudaMatrix& router,
                  const CudaContext& context) {
  CHECK_EQ(router.inputs(), params.x.cols);
  CHECK_EQ(router.outputs(), params.logits.cols);
  CHECK_EQ(params.x.rows, params.logits.rows);
  const int64_t groups = CeilDiv(params.x.rows, kRouteTokens);
  const int tiles = ExpertTiles(params.x.rows, router.outputs());
  const int64_t blocks = router.outputs() / (tiles * kRouteExpertTile);
  const bool in_cluster = blocks <= kMostClusterBlocks;
  const bool chooses = in_cluster || groups <= kArrivalCounters;
  const UnitsRoute units = {.route = params,
                            .x = static_cast<const float*>(params.x.data),
                            .x_stride = params.x.stride,
                            .router = static_cast<const CudaBf16*>(router.data()),
                            .router_bias = params.router_bias,
                            .inputs = static_cast<int>(router.inputs()),
                            .in_cluster = in_cluster,
                            .arrived = chooses ? context.arrivals : nullptr};
  const LaunchShape shape = {
      .grid = dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(groups)),
      .threads = kRouteThreads,
      .shared_bytes = UnitsRouteSharedBytes(tiles, units),
      .cluster = in_cluster ? static_cast<int>(blocks) : 1};
  if (tiles == kManyExpertTiles) {
    CHECK(params.norm.weight == nullptr) << "so many rows are normed before";
    Launch(UnitsRouteKernel<kManyExpertTiles, 0>, shape, context, units);
    return chooses;
  }
  WithNormedFours(params.norm, params.x.cols, [&](auto fours) {
    constexpr int kFours = decltype(fours)::value;
    Launch(tiles == 1 ? UnitsRouteKernel<1, kFours> : UnitsRouteKernel<2, kFours>, shape, context,
           units);
  });
  return chooses;
}

}  // namespace

void MoeRouteCuda(const MoeRouteParams& params, const CudaContext& context) {
  CHECK_LE(params.top_k, params.logits.cols);
  CHECK_EQ(params.logits.cols % params.groups, 0);
  CHECK_LE(params.groups_chosen, params.groups);
  const auto tokens = static_cast<unsigned>(params.logits.rows);
  if (tokens == 0) return;
  CHECK_LE(params.logits.cols, kMostExperts);
  const size_t floats = static_cast<size_t>(params.logits.cols) + params.groups;
  const size_t shared_bytes = floats * sizeof(float);
  if (params.router != nullptr) {
    const CudaMatrix& router = AsCuda(params.router);
    const bool on_units = IsForUnits(params, router);
    if (params.norm.weight != nullptr && !(on_units && UnitsMayNorm(params))) {
      MoeRouteParams normed = params;
      normed.x = NormedRows(params.x, params.norm, context);
      normed.norm = {};
      return MoeRouteCuda(normed, context);
    }
    if (on_units) {
      if (RouteOnUnits(params, router, context)) return;
    } else {
      LinearCuda({params.x, params.router, params.logits, /*accumulate=*/false, params.router_bias},
                 context);
    }
  }
  Launch(params.logits.cols <= kMostRoutedExperts ? MoeRouteKernel<false> : MoeRouteKernel<true>,
         {.grid = tokens, .threads = kWarpSize, .shared_bytes = static_cast<int64_t>(shared_bytes)},
         context, params);
}

}  // namespace troupe
