#include "base/check.h"
#include "kernels/cuda/cublas_lt.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_few_rows.cuh"
#include "kernels/linear/linear_products.cuh"
#include "kernels/rms_norm/rms_norm_cuda.h"

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
  Launch(UnitProductKernel<kRowTiles, kGated>,
         {.grid = grid, .threads = kUnitThreads, .shared_bytes = UnitSharedBytes(kRowTiles)},
         context, product);
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

// Whether a kernel that brings rows of x by BringRows may norm them.
bool MayNorm(const Tensor& x, const InputNorm& norm) {
  return norm.weight == nullptr ||
         (x.cols <= kMostNormedCols && reinterpret_cast<uintptr_t>(norm.weight) % 16 == 0);
}

// By streaming, where that takes the shape.
bool RunFewRows(const LinearParams& params, const CudaMatrix& w, const CudaContext& context) {
  const int64_t tiles = w.outputs() / kStreamRows;
  if (params.x.dtype != DType::kF32 || !RowsAligned(params.x) || !MayNorm(params.x, params.norm) ||
      w.outputs() % kStreamRows != 0 ||
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
                                  .norm = params.norm,
                                  .choice = choice};
  const PairedRows rows = {
      .groups = w.outputs() / kStreamRows, .group_step = 16, .half_step = 8, .row_step = 1};
  const CUtensorMap map = MapStream(w.data(), w.inputs(), rows, context.errors);
  WithNormedFours(params.norm, w.inputs(), [&](auto fours) {
    Launch(FewRowsKernel<kMostStreamRows / kStreamColumns, decltype(fours)::value>,
           {.grid = static_cast<unsigned>(choice.blocks),
            .threads = kStreamThreads,
            .shared_bytes = choice.shared_bytes},
           context, map, product);
  });
  return true;
}

// What products take that norm nothing: x normed, in scratch memory.
LinearParams NormedFirst(const LinearParams& params, const CudaContext& context) {
  LinearParams normed = params;
  normed.x = NormedRows(params.x, params.norm, context);
  normed.norm = {};
  return normed;
}

void RunUnits(const LinearParams& params, const CudaMatrix& w, const ProductChoice& choice,
              const CudaContext& context) {
  if (RunFewRows(params, w, context)) return;
  if (params.norm.weight != nullptr) return LinearCuda(NormedFirst(params, context), context);
  const int64_t rows = params.x.rows;
  const auto* rounded = static_cast<const CudaBf16*>(params.x.data);
  int64_t x_stride = params.x.stride;
  if (params.x.dtype != DType::kBf16) {
    auto* to = context.scratch.Take<CudaBf16>(rows * params.x.cols);
    if (!context.errors.ok()) return;
    LaunchRound(params.x, to, context);
    rounded = to;
    x_stride = w.inputs();
  }
  auto* out = static_cast<float*>(params.out.data);
  if (context.cublas != nullptr && params.bias == nullptr) {
    const DenseProduct product = {.x = rounded,
                                  .w = w.data(),
                                  .out = out,
                                  .rows = rows,
                                  .inputs = w.inputs(),
                                  .outputs = w.outputs(),
                                  .x_stride = x_stride,
                                  .out_stride = params.out.stride,
                                  .accumulate = params.accumulate};
    if (context.cublas->Run(product, context.stream, context.errors)) return;
  }
  UnitProduct product;
  product.rows.weights = w.data();
  product.rows.bias = params.bias;
  product.rows.rows = static_cast<int>(rows);
  product.x = rounded;
  product.x_stride = x_stride;
  product.inputs = w.inputs();
  product.outputs = w.outputs();
  product.out = out;
  product.out_stride = params.out.stride;
  product.accumulate = params.accumulate;
  LaunchUnits(product, /*gated=*/false, choice, CeilDiv(rows, choice.rows_a_tile), context);
}

}  // namespace

Tensor NormedRows(const Tensor& x, const InputNorm& norm, const CudaContext& context) {
  const Tensor normed = {context.scratch.Take<float>(x.rows * x.cols), DType::kF32, x.rows, x.cols,
                         x.cols};
  // The norm only reads them.
  auto* weight = const_cast<float*>(norm.weight);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  if (context.errors.ok()) {
    RmsNormCuda({x, {weight, DType::kF32, 1, x.cols, x.cols}, norm.eps, normed}, context);
  }
  return normed;
}

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

bool TakesRoundedCuda(const PackedMatrix& w, int64_t rows) {
  // Fewer are rounded where they are read.
  if (AsCodes(&w) != nullptr || AsFp8(&w) != nullptr || rows <= kMostStreamRows) return false;
  return ChooseProduct({.rows = rows,
                        .inputs = w.inputs(),
                        .outputs = w.outputs(),
                        .weights = AsCuda(&w).dtype(),
                        .precision = w.precision()})
             .kernel == ProductKernel::kMatrixUnits;
}

void LinearCuda(const LinearParams& params, const CudaContext& context) {
  CHECK_EQ(params.x.cols, params.w->inputs());
  CHECK_EQ(params.out.cols, params.w->outputs());
  CHECK_EQ(params.out.rows, params.x.rows);
  if (params.x.rows == 0) return;
  const CudaCodes* codes = AsCodes(params.w);
  const CudaFp8* fp8 = AsFp8(params.w);
  if ((codes != nullptr || fp8 != nullptr) && params.norm.weight != nullptr) {
    return LinearCuda(NormedFirst(params, context), context);
  }
  if (codes != nullptr) return CodedLinearCuda(params, *codes, context);
  if (fp8 != nullptr) return Fp8LinearCuda(params, *fp8, context);
  const CudaMatrix& w = AsCuda(params.w);
  const ProductChoice choice = ChooseProduct({.rows = params.x.rows,
                                              .inputs = w.inputs(),
                                              .outputs = w.outputs(),
                                              .weights = w.dtype(),
                                              .precision = w.precision(),
                                              .x_aligned = RowsAligned(params.x)});
  CHECK(params.x.dtype == DType::kF32 || choice.kernel == ProductKernel::kMatrixUnits)
      << "no kernel takes such rows rounded";
  if (choice.kernel == ProductKernel::kMatrixUnits) return RunUnits(params, w, choice, context);
  if (params.norm.weight != nullptr) return LinearCuda(NormedFirst(params, context), context);
  const bool rounded = w.precision() == Precision::kFp8Groups;
  const Tensor x = rounded ? RoundedToFp8(params.x, context) : params.x;
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
