// Maps by which the copy engine finds tiles of matrices (of bf16, unless said) in device memory,
// and lays them out in shared memory as a warpgroup's products want them: rows of 128 bytes,
// swizzled.
//
// Thread model: any. Ownership: a map borrows the memory it describes.
#ifndef TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_
#define TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/errors.h"
#include "kernels/tensor.h"

namespace troupe {

inline constexpr int kMapInputs = 64;  // of a tile's rows: 128 bytes
inline constexpr int kMapRowBytes = kMapInputs * 2;

// [rows, inputs], in tiles of `tile_rows` rows. `inputs` are a multiple of 8. What lies beyond the
// matrix reads as zero. Errors of the driver are noted.
CUtensorMap MapRows(const void* x, int64_t rows, int64_t inputs, int tile_rows, CudaErrors& errors);

// The same memory as groups of 2 * 8 rows, `groups` of them, in tiles of 8 groups: row r of half h
// of group g is row g * group_step + h * half_step + r * row_step of the matrix.
struct PairedRows {
  int64_t groups = 0;
  int64_t group_step = 0;
  int64_t half_step = 0;
  int64_t row_step = 0;
};
CUtensorMap MapPairedRows(const void* w, int64_t inputs, const PairedRows& rows,
                          CudaErrors& errors);

// The same, in tiles of one group by kStreamInputs inputs, column block after column block; the
// last dimension counts these. `inputs` are a multiple of kMapInputs.
CUtensorMap MapStream(const void* w, int64_t inputs, const PairedRows& rows, CudaErrors& errors);

// Bytes: [rows, cols], in tiles of 128 columns; and as MapPairedRows has them. `cols` are a
// multiple of 128.
CUtensorMap MapByteRows(const void* x, int64_t rows, int64_t cols, int tile_rows,
                        CudaErrors& errors);
CUtensorMap MapPairedByteRows(const void* w, int64_t cols, const PairedRows& rows,
                              CudaErrors& errors);

// [rows, cols] of f32, in tiles of one row by `tile_cols` columns, as they lie in memory. Rows
// begin `stride` elements, a multiple of 4, after one another.
CUtensorMap MapFloats(const float* x, int64_t rows, int64_t cols, int64_t stride, int tile_cols,
                      CudaErrors& errors);

// The pages of a bf16 stream, in tiles of kMapInputs channels of a KV head's entries: coordinates
// are a channel, an entry of the page (KV heads one after another) and a page. Requires head sizes,
// and pages' bytes, that are whole 16 bytes.
CUtensorMap MapPages(const KvStream& stream, CudaErrors& errors);

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_
