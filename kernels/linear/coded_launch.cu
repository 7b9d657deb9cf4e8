// Products of codes: few rows stream, some go in tiles, and many meet the numbers that the codes
// stand for.
#include "base/check.h"
#include "kernels/cuda/cublas_lt.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/linear/coded_few_rows.cuh"
#include "kernels/linear/coded_kinds.h"
#include "kernels/linear/coded_tiles.cuh"
#include "kernels/linear/coded_unpack.cuh"
#include "kernels/linear/linear_products.cuh"

namespace troupe {
namespace {

constexpr int64_t kMostTileRows = 64;

bool RunFewRows(const LinearParams& params, const CudaCodes& w, const CudaContext& context) {
  if (!RowsAligned(params.x)) return false;
  const CodedStreamChoice choice =
      ChooseCodedStream(w.shape(), w.view().segments, params.x.rows, context.multiprocessors);
  if (choice.blocks == 0) return false;
  const CodedFewRows product = {.x = static_cast<const float*>(params.x.data),
                                .x_stride = params.x.stride,
                                .rows = static_cast<int>(params.x.rows),
                                .w = w.view(),
                                .bias = params.bias,
                                .out = static_cast<float*>(params.out.data),
                                .out_stride = params.out.stride,
                                .accumulate = params.accumulate,
                                .tiles = choice.tiles};
  WithCodedKind(w.kind(), [&](auto known) {
    constexpr CodedKind kKind = decltype(known)::value;
    Launch(
        product.rows <= kCodedColumns ? CodedFewRowsKernel<kKind, 1> : CodedFewRowsKernel<kKind, 2>,
        {.grid = static_cast<unsigned>(choice.blocks),
         .threads = choice.tiles * w.view().segments * kWarpSize,
         .shared_bytes = choice.shared_bytes},
        context, product);
  });
  return true;
}

// One segment of the inputs with plain numbers, added to `out` unless it is the first.
void RunSegment(const LinearParams& params, const CudaCodes& w, int segment, const CudaBf16* x,
                const CudaBf16* numbers, const CudaContext& context) {
  const int64_t first = int64_t{segment} * w.view().segment_inputs;
  const int64_t inputs = std::min<int64_t>(w.view().segment_inputs, w.inputs() - first);
  const bool last = segment == w.view().segments - 1;
  const bool accumulate = params.accumulate || segment > 0;
  const float* bias = last ? params.bias : nullptr;
  auto* out = static_cast<float*>(params.out.data);
  const CudaBf16* weights = numbers + first * w.outputs();
  if (context.cublas != nullptr && bias == nullptr) {
    const DenseProduct product = {.x = x + first,
                                  .w = weights,
                                  .out = out,
                                  .rows = params.x.rows,
                                  .inputs = inputs,
                                  .outputs = w.outputs(),
                                  .x_stride = w.inputs(),
                                  .out_stride = params.out.stride,
                                  .accumulate = accumulate};
    if (context.cublas->Run(product, context.stream, context.errors)) return;
  }
  UnitProduct product;
  product.rows.weights = weights;
  product.rows.bias = bias;
  product.rows.rows = static_cast<int>(params.x.rows);
  product.x = x + first;
  product.x_stride = w.inputs();
  product.inputs = inputs;
  product.outputs = w.outputs();
  product.out = out;
  product.out_stride = params.out.stride;
  product.accumulate = accumulate;
  ProductChoice choice;
  choice.rows_a_tile = params.x.rows <= 64 ? 64 : 128;
  LaunchUnits(product, /*gated=*/false, choice, CeilDiv(params.x.rows, choice.rows_a_tile),
              context);
}

void RunUnpacked(const LinearParams& params, const CudaCodes& w, const CudaBf16* x,
                 const CudaContext& context) {
  auto* numbers = context.scratch.Take<CudaBf16>(w.outputs() * w.inputs());
  if (!context.errors.ok()) return;
  const auto tiles = static_cast<unsigned>(w.shape().tiles());
  const auto groups = static_cast<unsigned>(
      CeilDiv(w.shape().padded_inputs(), int64_t{kUnpackWarps} * kCodedInputs));
  WithCodedKind(w.kind(), [&](auto known) {
    Launch(UnpackCodesKernel<decltype(known)::value>,
           {.grid = dim3(tiles, groups), .threads = kUnpackWarps * kWarpSize, .overlaps = false},
           context, w.view(), numbers);
  });
  for (int segment = 0; segment < w.view().segments; ++segment) {
    RunSegment(params, w, segment, x, numbers, context);
  }
}

template <CodedKind kKind, bool kGated>
void LaunchTilesOf(const CodedTileProduct& product, int rows_a_tile, const dim3& grid,
                   const CudaContext& context) {
  const auto launch = [&](auto column_tiles) {
    constexpr int kColumnTiles = decltype(column_tiles)::value;
    Launch(CodedTileKernel<kKind, kColumnTiles, kGated>,
           {.grid = grid,
            .threads = kCodedTileThreads,
            .shared_bytes = CodedStage<kKind, kColumnTiles>::kSharedBytes},
           context, product);
  };
  if (rows_a_tile == 8) return launch(std::integral_constant<int, 1>());
  if (rows_a_tile == 16) return launch(std::integral_constant<int, 2>());
  CHECK_EQ(rows_a_tile, 64);
  launch(std::integral_constant<int, 8>());
}

}  // namespace

void LaunchCodedTiles(const CodedTileProduct& product, CodedKind kind, bool gated, int rows_a_tile,
                      int64_t tiles, const CudaContext& context) {
  const int segments = product.partial == nullptr ? 1 : product.w.segments;
  const dim3 grid(static_cast<unsigned>(CeilDiv(product.w.outputs, kCodedBlockOutputs)),
                  static_cast<unsigned>(tiles), static_cast<unsigned>(segments));
  WithCodedKind(kind, [&](auto known) {
    constexpr CodedKind kKind = decltype(known)::value;
    if (gated) {
      LaunchTilesOf<kKind, true>(product, rows_a_tile, grid, context);
    } else {
      LaunchTilesOf<kKind, false>(product, rows_a_tile, grid, context);
    }
  });
}

void CodedLinearCuda(const LinearParams& params, const CudaCodes& w, const CudaContext& context) {
  if (RunFewRows(params, w, context)) return;
  auto* x = context.scratch.Take<CudaBf16>(params.x.rows * params.x.cols);
  if (!context.errors.ok()) return;
  LaunchRound(params.x, x, context);
  if (params.x.rows > kMostTileRows) return RunUnpacked(params, w, x, context);
  CodedTileProduct product;
  product.w = w.view();
  product.rows.bias = params.bias;
  product.rows.rows = static_cast<int>(params.x.rows);
  product.x = x;
  product.x_stride = w.inputs();
  product.out = static_cast<float*>(params.out.data);
  product.out_stride = params.out.stride;
  product.accumulate = params.accumulate;
  const int segments = w.view().segments;
  if (segments > 1) {
    product.partial = context.scratch.Take<float>(segments * params.x.rows * w.outputs());
    if (!context.errors.ok()) return;
  }
  LaunchCodedTiles(product, w.kind(), /*gated=*/false, params.x.rows <= 16 ? 16 : 64, 1, context);
  if (segments == 1) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv(w.outputs(), int64_t{kSumSegmentsThreads})),
                  static_cast<unsigned>(params.x.rows));
  Launch(SumSegmentsKernel, {.grid = grid, .threads = kSumSegmentsThreads}, context, product);
}

}  // namespace troupe
