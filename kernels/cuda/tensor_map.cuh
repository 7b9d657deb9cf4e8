// Maps by which the copy engine finds tiles of bf16 matrices in device memory, and lays them out in
// shared memory as a warpgroup's products want them: rows of 128 bytes, swizzled.
//
// Thread model: any. Ownership: a map borrows the memory it describes.
#ifndef TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_
#define TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/errors.h"
#include "kernels/tensor.h"

namespace troupe {

inline constexpr int kMapInputs = 64;   // of a tile's rows: 128 bytes
inline constexpr int kMapEntries = 64;  // of a tile of MapPages
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

// The pages of a bf16 stream, in tiles of 64 channels of kMapEntries: coordinates are a channel,
// an entry of the page (KV heads one after another) and a page. Requires head sizes, and pages'
// bytes, that are whole 16 bytes.
CUtensorMap MapPages(const KvStream& stream, CudaErrors& errors);

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_TENSOR_MAP_CUH_
