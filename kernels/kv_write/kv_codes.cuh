// Device code that writes keys and values in FP8 (kernels/e4m3.h): a warp a row.
#ifndef TROUPE_KERNELS_KV_WRITE_KV_CODES_CUH_
#define TROUPE_KERNELS_KV_WRITE_KV_CODES_CUH_

#include <cuda_fp8.h>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/e4m3.h"
#include "kernels/kv_write/kv_write.h"

namespace troupe {

// Puts down the row of a head. Called by a warp, all of which sees `from`.
__device__ __forceinline__ void WriteCodedRow(const float* from, const KvStream& stream,
                                              const BlockTables& tables, uint32_t slot,
                                              int64_t entry, int head) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int size = stream.head_dim;
  const int per_page = stream.entries_per_page;
  const uint32_t page = tables.pages[slot * tables.stride + entry / per_page];
  auto* base = reinterpret_cast<uint8_t*>(stream.base + page * stream.page_bytes);
  const int64_t row = static_cast<int64_t>(head) * per_page + entry % per_page;
  uint8_t* codes = base + row * size;
  unsigned largest = 0;
  for (int c = lane; c < size; c += kWarpSize) {
    largest = max(largest, __float_as_uint(from[c]) & 0x7fffffffU);
  }
  const uint8_t scale = ScaleForLargest(__reduce_max_sync(kAllLanes, largest));
  if (lane == 0) base[static_cast<int64_t>(stream.kv_heads) * per_page * size + row] = scale;
  const float inverse = __uint_as_float(InverseScaleBits(scale));
  for (int c = lane; c < size; c += kWarpSize) {
    const auto code = __nv_cvt_float_to_fp8(from[c] * inverse, __NV_SATFINITE, __NV_E4M3);
    codes[c] = scale == kNanScale ? uint8_t{0} : code;
  }
}

inline constexpr int kCodedWriteThreads = 128;

}  // namespace troupe

#endif  // TROUPE_KERNELS_KV_WRITE_KV_CODES_CUH_
