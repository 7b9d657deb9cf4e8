// What launches of products of codes are told (kernels/linear/coded_layout.h).
#ifndef TROUPE_KERNELS_LINEAR_CODED_PRODUCT_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_PRODUCT_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/cuda/grouped.cuh"
#include "kernels/cuda/math.cuh"

namespace troupe {

// Pointers are to device memory.
struct CodedView {
  const uint4* codes = nullptr;       // [tiles, units, 32]
  const std::byte* scales = nullptr;  // [tiles, groups, 8, 2]
  const uint16_t* zeros = nullptr;    // [tiles, groups, 8], each two bytes; with StoresZeros
  int outputs = 0;
  int inputs = 0;
  int padded_inputs = 0;
  int group_bits = 0;  // a group has 2^group_bits inputs
  int groups = 0;
  int segments = 0;
  int segment_inputs = 0;
};

// What `rows` says of weights is not read.
struct CodedTileProduct {
  GroupedRows rows;
  CodedView w;                             // the matrix, or one of the groups'
  const CodedView* group_views = nullptr;  // [groups], on the device; null: no groups
  const CudaBf16* x = nullptr;
  int64_t x_stride = 0;  // a multiple of 8, as are the inputs
  void* out = nullptr;   // f32; with kGated bf16: activation(gate, up)
  // [segments, rows, outputs] f32 instead of `out`; null: there is one segment.
  float* partial = nullptr;
  int64_t out_stride = 0;
  bool accumulate = false;
  Activation activation;  // with kGated
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_PRODUCT_CUH_
