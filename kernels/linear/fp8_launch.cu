// Products of FP8 with FP8: packing, rounding of x, and launches.
#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/linear/fp8_round.cuh"

namespace troupe {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return CeilDiv(bytes, kAlignment) * kAlignment; }

// The scales of every kFp8Slab rows.
std::vector<float> SlabScales(absl::Span<const CodedMatrix> parts) {
  std::vector<float> scales;
  for (const CodedMatrix& part : parts) {
    const int64_t groups = part.groups();
    for (int64_t row = 0; row < part.rows; row += kFp8Slab) {
      const float* first = part.scales + row * groups;
      scales.insert(scales.end(), first, first + groups);
    }
  }
  return scales;
}

// Rows of codes one after another, padded with zeros to whole blocks.
void CopyCodes(absl::Span<const CodedMatrix> parts, int64_t row_bytes, std::byte* to,
               cudaStream_t stream, CudaErrors& errors) {
  for (const CodedMatrix& part : parts) {
    const auto pitch = static_cast<size_t>(row_bytes);
    const auto bytes = static_cast<size_t>(part.row_bytes());
    CudaOk(cudaMemset2DAsync(to, pitch, 0, pitch, static_cast<size_t>(part.rows), stream),
           "copy of weights to the device", errors);
    CudaOk(cudaMemcpy2DAsync(to, pitch, part.codes, bytes, bytes, static_cast<size_t>(part.rows),
                             cudaMemcpyHostToDevice, stream),
           "copy of weights to the device", errors);
    to += part.rows * row_bytes;
  }
}

void LaunchRounding(const Fp8Rounding& rounding, DType dtype, int64_t rows,
                    const CudaContext& context) {
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(CeilDiv(rounding.blocks, kFp8RoundThreads / kWarpSize)));
  Launch(dtype == DType::kF32 ? Fp8RoundKernel<float> : Fp8RoundKernel<CudaBf16>,
         {.grid = grid, .threads = kFp8RoundThreads}, context, rounding);
}

template <bool kGated, class Shape>
void LaunchFp8Of(const Fp8Product& product, const Fp8Rows& rows, const CudaContext& context) {
  const int64_t cols = int64_t{rows.blocks} * kFp8Block;
  const Fp8RowMaps maps = {
      MapByteRows(rows.codes, rows.rows, cols, Shape::kBoxRows, context.errors),
      MapFloats(rows.scales, rows.blocks, rows.rows, rows.scale_stride, Shape::kMostRows,
                context.errors)};
  if (!context.errors.ok()) return;
  Launch(Fp8ProductKernel<kGated, Shape>,
         {.grid = static_cast<unsigned>(context.multiprocessors),
          .threads = kFp8Threads,
          .shared_bytes = Shape::kSharedBytes},
         context, maps, product);
}

}  // namespace

std::unique_ptr<CudaFp8> CudaFp8::Pack(absl::Span<const CodedMatrix> parts, Precision precision,
                                       CudaArena& arena, cudaStream_t stream, CudaErrors& errors) {
  CHECK(!parts.empty());
  if (!TakesFp8(parts, precision)) return nullptr;
  int64_t outputs = 0;
  for (const CodedMatrix& part : parts) {
    CHECK(PackTogether(parts[0], part));
    outputs += part.rows;
  }
  const int64_t row_bytes = Fp8Blocks(parts[0].cols) * kFp8Block;
  const std::vector<float> scales = SlabScales(parts);
  const int64_t codes_bytes = Aligned(outputs * row_bytes);
  const int64_t scales_bytes = Aligned(static_cast<int64_t>(scales.size() * sizeof(float)));
  const int64_t bytes = codes_bytes + scales_bytes + static_cast<int64_t>(sizeof(CUtensorMap));
  std::unique_ptr<CudaFp8> matrix(new CudaFp8(outputs, parts[0].cols, precision, bytes));
  auto memory = arena.Allocate(bytes);
  if (!memory.ok()) {
    errors.Note(memory.status());
    return matrix;
  }
  matrix->memory_ = *std::move(memory);
  std::byte* at = matrix->memory_.get();
  CopyCodes(parts, row_bytes, at, stream, errors);
  matrix->scales_ = reinterpret_cast<const float*>(at + codes_bytes);
  CudaOk(cudaMemcpyAsync(at + codes_bytes, scales.data(), scales.size() * sizeof(float),
                         cudaMemcpyHostToDevice, stream),
         "copy of weights to the device", errors);
  // A thread's two rows are neighbours.
  matrix->map_ = MapPairedByteRows(
      at, row_bytes, {.groups = outputs / 16, .group_step = 16, .half_step = 1, .row_step = 2},
      errors);
  std::byte* map = at + codes_bytes + scales_bytes;
  matrix->device_map_ = reinterpret_cast<const CUtensorMap*>(map);
  CudaOk(cudaMemcpyAsync(map, &matrix->map_, sizeof(CUtensorMap), cudaMemcpyHostToDevice, stream),
         "copy of weights to the device", errors);
  // The parts and the scales may go away.
  CudaOk(cudaStreamSynchronize(stream), "copy of weights to the device", errors);
  return matrix;
}

const CudaFp8* AsFp8(const PackedMatrix* matrix) { return dynamic_cast<const CudaFp8*>(matrix); }

bool RoundToFp8(const Fp8Source& source, Fp8Rows& rows, const CudaContext& context) {
  rows.rows = source.place == nullptr ? source.rows : source.copied_rows;
  rows.blocks = static_cast<int>(Fp8Blocks(source.cols));
  rows.scale_stride = CeilDiv(rows.rows, int64_t{4}) * 4;
  auto* codes = context.scratch.Take<uint8_t>(rows.rows * rows.blocks * kFp8Block);
  auto* scales = context.scratch.Take<float>(rows.scale_stride * rows.blocks);
  if (!context.errors.ok()) return false;
  rows.codes = codes;
  rows.scales = scales;
  LaunchRounding({.x = source.x,
                  .stride = source.stride,
                  .cols = static_cast<int>(source.cols),
                  .blocks = rows.blocks,
                  .place = source.place,
                  .copies = source.copies,
                  .codes = codes,
                  .scales = scales,
                  .scale_stride = rows.scale_stride},
                 source.dtype, source.rows, context);
  return context.errors.ok();
}

Tensor RoundedToFp8(const Tensor& x, const CudaContext& context) {
  const Tensor rounded = {context.scratch.Take<float>(x.rows * x.cols), DType::kF32, x.rows, x.cols,
                          x.cols};
  if (!context.errors.ok()) return rounded;
  LaunchRounding({.x = x.data,
                  .stride = x.stride,
                  .cols = static_cast<int>(x.cols),
                  .blocks = static_cast<int>(Fp8Blocks(x.cols)),
                  .values = static_cast<float*>(rounded.data)},
                 DType::kF32, x.rows, context);
  return rounded;
}

void LaunchFp8(Fp8Product product, const Fp8Rows& rows, bool gated, bool few_rows, int waves,
               const CudaContext& context) {
  product.blocks = rows.blocks;
  if (gated) {
    return few_rows ? LaunchFp8Of<true, Fp8Shape<2, kFp8FewRows>>(product, rows, context)
                    : LaunchFp8Of<true, Fp8Shape<2, kFp8MostRows>>(product, rows, context);
  }
  if (few_rows) {
    return waves == 2 ? LaunchFp8Of<false, Fp8Shape<2, kFp8FewRows>>(product, rows, context)
                      : LaunchFp8Of<false, Fp8Shape<1, kFp8FewRows>>(product, rows, context);
  }
  return waves == 2 ? LaunchFp8Of<false, Fp8Shape<2, kFp8MostRows>>(product, rows, context)
                    : LaunchFp8Of<false, Fp8Shape<1, kFp8MostRows>>(product, rows, context);
}

void Fp8LinearCuda(const LinearParams& params, const CudaFp8& w, const CudaContext& context) {
  CHECK(reinterpret_cast<uintptr_t>(params.out.data) % sizeof(float2) == 0 &&
        params.out.stride % 2 == 0)
      << "results in pairs";
  const int64_t count = params.x.rows;
  Fp8Rows rows;
  if (!RoundToFp8({.x = params.x.data,
                   .dtype = params.x.dtype,
                   .rows = count,
                   .cols = params.x.cols,
                   .stride = params.x.stride},
                  rows, context)) {
    return;
  }
  LaunchFp8({.weights = w.device_map(),
             .scales = w.scales(),
             .bias = params.bias,
             .rows = static_cast<int>(count),
             .rows_a_tile = ChooseFp8Rows(count),
             .weight_rows = static_cast<int>(w.outputs()),
             .out = params.out.data,
             .out_stride = params.out.stride,
             .accumulate = params.accumulate},
            rows, /*gated=*/false, count <= kFp8FewRows,
            ChooseFp8Waves(count, w.outputs(), context.multiprocessors), context);
}

}  // namespace troupe
