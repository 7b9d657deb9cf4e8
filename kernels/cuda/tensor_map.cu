#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/linear/stream_choice.h"

namespace troupe {
namespace {

constexpr int64_t kElementBytes = 2;

// The driver's function, found without linking the driver: programs start where there is none.
decltype(&cuTensorMapEncodeTiled) FindEncode(CudaErrors& errors) {
  constexpr unsigned kSince = 12000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  CudaOk(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince,
                                          cudaEnableDefault, &found),
         "cuTensorMapEncodeTiled", errors);
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

template <CUtensorMapDataType kType = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, int kDims>
CUtensorMap Encode(const void* memory, const cuuint64_t (&sizes)[kDims],
                   const cuuint64_t (&step_bytes)[kDims - 1], const cuuint32_t (&box)[kDims],
                   CudaErrors& errors) {
  // Numbers that threads read lie as they come.
  constexpr bool kOperand = kType != CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  static const auto encode = FindEncode(errors);
  CUtensorMap map = {};
  cuuint32_t every_element[kDims];
  for (cuuint32_t& step : every_element) step = 1;
  const CUresult result =
      encode == nullptr
          ? CUDA_ERROR_NOT_FOUND
          : encode(&map, kType, kDims, const_cast<void*>(memory), sizes, step_bytes, box,
                   every_element, CU_TENSOR_MAP_INTERLEAVE_NONE,
                   kOperand ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    errors.Note(absl::InternalError(absl::StrCat("CUDA: a tensor map of rows of ", sizes[0],
                                                 ": error ", static_cast<int>(result))));
  }
  return map;
}

}  // namespace

CUtensorMap MapRows(const void* x, int64_t rows, int64_t inputs, int tile_rows,
                    CudaErrors& errors) {
  return Encode<CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2>(
      x, {static_cast<cuuint64_t>(inputs), static_cast<cuuint64_t>(rows)},
      {static_cast<cuuint64_t>(inputs * kElementBytes)},
      {kMapInputs, static_cast<cuuint32_t>(tile_rows)}, errors);
}

CUtensorMap MapPairedRows(const void* w, int64_t inputs, const PairedRows& rows,
                          CudaErrors& errors) {
  const auto bytes = [&](int64_t steps) {
    return static_cast<cuuint64_t>(steps * inputs * kElementBytes);
  };
  return Encode<CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4>(
      w, {static_cast<cuuint64_t>(inputs), 8, 2, static_cast<cuuint64_t>(rows.groups)},
      {bytes(rows.row_step), bytes(rows.half_step), bytes(rows.group_step)}, {kMapInputs, 8, 2, 8},
      errors);
}

CUtensorMap MapByteRows(const void* x, int64_t rows, int64_t cols, int tile_rows,
                        CudaErrors& errors) {
  return Encode<CU_TENSOR_MAP_DATA_TYPE_UINT8, 2>(
      x, {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)},
      {static_cast<cuuint64_t>(cols)}, {kMapRowBytes, static_cast<cuuint32_t>(tile_rows)}, errors);
}

CUtensorMap MapPairedByteRows(const void* w, int64_t cols, const PairedRows& rows,
                              CudaErrors& errors) {
  const auto bytes = [&](int64_t steps) { return static_cast<cuuint64_t>(steps * cols); };
  return Encode<CU_TENSOR_MAP_DATA_TYPE_UINT8, 4>(
      w, {static_cast<cuuint64_t>(cols), 8, 2, static_cast<cuuint64_t>(rows.groups)},
      {bytes(rows.row_step), bytes(rows.half_step), bytes(rows.group_step)},
      {kMapRowBytes, 8, 2, 8}, errors);
}

CUtensorMap MapFloats(const float* x, int64_t rows, int64_t cols, int64_t stride, int tile_cols,
                      CudaErrors& errors) {
  return Encode<CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2>(
      x, {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)},
      {static_cast<cuuint64_t>(stride * static_cast<int64_t>(sizeof(float)))},
      {static_cast<cuuint32_t>(tile_cols), 1}, errors);
}

CUtensorMap MapPages(const KvStream& stream, CudaErrors& errors) {
  // A map has to say how many pages there are, which nobody here knows; page tables are right.
  constexpr cuuint64_t kMostPages = cuuint64_t{1} << 24;
  const auto rows = static_cast<cuuint64_t>(stream.entries_per_page) * stream.kv_heads;
  return Encode<CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3>(
      stream.base, {static_cast<cuuint64_t>(stream.head_dim), rows, kMostPages},
      {static_cast<cuuint64_t>(stream.head_dim * kElementBytes),
       static_cast<cuuint64_t>(stream.page_bytes)},
      {kMapInputs, static_cast<cuuint32_t>(stream.entries_per_page), 1}, errors);
}

CUtensorMap MapStream(const void* w, int64_t inputs, const PairedRows& rows, CudaErrors& errors) {
  const auto bytes = [&](int64_t steps) {
    return static_cast<cuuint64_t>(steps * inputs * kElementBytes);
  };
  return Encode<CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5>(
      w,
      {kMapInputs, 8, 2, static_cast<cuuint64_t>(rows.groups),
       static_cast<cuuint64_t>(inputs / kMapInputs)},
      {bytes(rows.row_step), bytes(rows.half_step), bytes(rows.group_step),
       kMapInputs * kElementBytes},
      {kMapInputs, 8, 2, 1, kStreamInputs / kMapInputs}, errors);
}

}  // namespace troupe
