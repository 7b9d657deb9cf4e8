#include "base/check.h"
#include "kernels/cuda/cublas_lt.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_few_rows.cuh"
#include "kernels/linear/linear_products.cuh"

namespace troupe {
namespace {

constexpr int kRoundThreads = 256;

// Grid: rows in x, groups of kUnit * kRoundThreads columns in y.
template <int kUnit>
__global__ void __launch_bounds__(kRoundThreads) RoundKernel(Tensor x, CudaBf16* to) {
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kRoundThreads + threadIdx.x) * kUnit;
  if (col >= x.cols) return;
  const float* from = static_cast<const float*>(x.data) + row * x.stride + col;
  if constexpr (kUnit == 4) {
    *reinterpret_cast<uint2*>(to + row * x.cols + col) =
        RoundedFour(*reinterpret_cast<const float4*>(from));
  } else {
    to[row * x.cols + col] = Narrow<CudaBf16>(*from);
  }
}

template <class Weight, int kUnit, bool kRoundX>
void LaunchExactOf(const ExactProduct& product, int rows_a_tile, const dim3& grid,
                   const CudaContext& context) {
  Launch(rows_a_tile == 1 ? ExactProductKernel<Weight, kUnit, 1, kRoundX>
                          : ExactProductKernel<Weight, kUnit, 8, kRoundX>,
         {.grid = grid, .threads = kExactWarps * kWarpSize}, context, product);
}

template <int kRowTiles, bool kGated>
void LaunchUnitsOf(const UnitProduct& product, const dim3& grid, const CudaContext& context) {
  constexpr int64_t kSharedBytes = UnitSharedBytes(kRowTiles);
  AllowSharedMemory(UnitProductKernel<kRowTiles, kGated>, kSharedBytes, context.errors);
  UnitProductKernel<kRowTiles, kGated>
      <<<grid, kUnitThreads, kSharedBytes, context.stream>>>(product);
}

template <bool kGated>
void LaunchUnitsWith(const UnitProduct& product, int rows_a_tile, const dim3& grid,
                     const CudaContext& context) {
  if (rows_a_tile == 16) {
    LaunchUnitsOf<1, kGated>(product, grid, context);
  } else if (rows_a_tile == 64) {
    LaunchUnitsOf<4, kGated>(product, grid, context);
  } else {
    LaunchUnitsOf<8, kGated>(product, grid, context);
  }
}

// By streaming, where that takes the shape.
bool RunFewRows(const LinearParams& params, const CudaMatrix& w, const CudaContext& context) {
  const int64_t tiles = w.outputs() / kStreamRows;
  if (!RowsAligned(params.x) || w.outputs() % kStreamRows != 0 ||
      !WantsStream(tiles, params.x.rows, w.inputs(), context.multiprocessors)) {
    return false;
  }
  const StreamChoice choice =
      ChooseStream(tiles, params.x.rows, w.inputs(), /*other_bytes=*/0, context.multiprocessors);
  if (choice.blocks == 0) return false;
  const FewRowsProduct product = {.x = static_cast<const float*>(params.x.data),
                                  .x_stride = params.x.stride,
                                  .rows = static_cast<int>(params.x.rows),
                                  .bias = params.bias,
                                  .out = static_cast<float*>(params.out.data),
                                  .out_stride = params.out.stride,
                                  .inputs = static_cast<int>(w.inputs()),
                                  .outputs = static_cast<int>(w.outputs()),
                                  .accumulate = params.accumulate,
                                  .choice = choice};
  const PairedRows rows = {
      .groups = w.outputs() / kStreamRows, .group_step = 16, .half_step = 8, .row_step = 1};
  Launch(FewRowsKernel<kMostStreamRows / kStreamColumns>,
         {.grid = static_cast<unsigned>(choice.blocks),
          .threads = kStreamThreads,
          .shared_bytes = choice.shared_bytes},
         context, MapStream(w.data(), w.inputs(), rows, context.errors), product);
  return true;
}

void RunUnits(const LinearParams& params, const CudaMatrix& w, const ProductChoice& choice,
              const CudaContext& context) {
  if (RunFewRows(params, w, context)) return;
  const int64_t rows = params.x.rows;
  auto* rounded = context.scratch.Take<CudaBf16>(rows * params.x.cols);
  if (!context.errors.ok()) return;
  LaunchRound(params.x, rounded, context);
  auto* out = static_cast<float*>(params.out.data);
  if (context.cublas != nullptr && params.bias == nullptr) {
    const DenseProduct product = {.x = rounded,
                                  .w = w.data(),
                                  .out = out,
                                  .rows = rows,
                                  .inputs = w.inputs(),
                                  .outputs = w.outputs(),
                                  .x_stride = w.inputs(),
                                  .out_stride = params.out.stride,
                                  .accumulate = params.accumulate};
    if (context.cublas->Run(product, context.stream, context.errors)) return;
  }
  UnitProduct product;
  product.rows.weights = w.data();
  product.rows.bias = params.bias;
  product.rows.rows = static_cast<int>(rows);
  product.x = rounded;
  product.x_stride = w.inputs();
  product.inputs = w.inputs();
  product.outputs = w.outputs();
  product.out = out;
  product.out_stride = params.out.stride;
  product.accumulate = params.accumulate;
  LaunchUnits(product, /*gated=*/false, choice, CeilDiv(rows, choice.rows_a_tile), context);
}

}  // namespace

bool RowsAligned(const Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.data) % sizeof(float4) == 0 && x.stride % 4 == 0;
}

void LaunchRound(const Tensor& x, CudaBf16* to, const CudaContext& context) {
  const int unit = x.cols % 4 == 0 && RowsAligned(x) ? 4 : 1;
  const dim3 grid(static_cast<unsigned>(x.rows),
                  static_cast<unsigned>(CeilDiv(x.cols, unit * kRoundThreads)));
  Launch(unit == 4 ? RoundKernel<4> : RoundKernel<1>, {.grid = grid, .threads = kRoundThreads},
         context, x, to);
}

void LaunchExact(const ExactProduct& product, DType weights, bool round_x,
                 const ProductChoice& choice, int64_t tiles, const CudaContext& context,
                 int batch) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(product.outputs, kExactWarps * kExactOutputs)),
                  static_cast<unsigned>(tiles), static_cast<unsigned>(batch));
  const auto launch = [&](auto element, auto round) {
    using Weight = decltype(element);
    if (choice.unit == 4) {
      LaunchExactOf<Weight, 4, decltype(round)::value>(product, choice.rows_a_tile, grid, context);
    } else {
      LaunchExactOf<Weight, 1, decltype(round)::value>(product, choice.rows_a_tile, grid, context);
    }
  };
  WithElement(weights, [&](auto element) {
    if (round_x) {
      launch(element, std::true_type());
    } else {
      launch(element, std::false_type());
    }
  });
}

void LaunchUnits(const UnitProduct& product, bool gated, const ProductChoice& choice, int64_t tiles,
                 const CudaContext& context) {
  const int64_t outputs_a_block = gated ? kUnitOutputs / 2 : kUnitOutputs;
  const dim3 grid(static_cast<unsigned>(CeilDiv(product.outputs, outputs_a_block)),
                  static_cast<unsigned>(tiles));
  if (gated) {
    LaunchUnitsWith<true>(product, choice.rows_a_tile, grid, context);
  } else {
    LaunchUnitsWith<false>(product, choice.rows_a_tile, grid, context);
  }
}

void LinearCuda(const LinearParams& params, const CudaContext& context) {
  CHECK_EQ(params.x.cols, params.w->inputs());
  CHECK_EQ(params.out.cols, params.w->outputs());
  CHECK_EQ(params.out.rows, params.x.rows);
  if (params.x.rows == 0) return;
  if (const CudaCodes* codes = AsCodes(params.w)) return CodedLinearCuda(params, *codes, context);
  if (const CudaFp8* fp8 = AsFp8(params.w)) return Fp8LinearCuda(params, *fp8, context);
  const CudaMatrix& w = AsCuda(params.w);
  const ProductChoice choice = ChooseProduct({.rows = params.x.rows,
                                              .inputs = w.inputs(),
                                              .outputs = w.outputs(),
                                              .weights = w.dtype(),
                                              .precision = w.precision(),
                                              .x_aligned = RowsAligned(params.x)});
  if (choice.kernel == ProductKernel::kMatrixUnits) return RunUnits(params, w, choice, context);
  const bool fp8 = w.precision() == Precision::kFp8Groups;
  const Tensor x = fp8 ? RoundedToFp8(params.x, context) : params.x;
  if (!context.errors.ok()) return;
  ExactProduct product;
  product.rows.weights = w.data();
  product.rows.bias = params.bias;
  product.rows.rows = static_cast<int>(params.x.rows);
  product.x = static_cast<const float*>(x.data);
  product.x_stride = x.stride;
  product.out = static_cast<float*>(params.out.data);
  product.out_stride = params.out.stride;
  product.inputs = w.inputs();
  product.outputs = w.outputs();
  product.accumulate = params.accumulate;
  LaunchExact(product, w.dtype(), w.precision() == Precision::kBf16, choice,
              CeilDiv(params.x.rows, choice.rows_a_tile), context);
}

}  // namespace troupe
