#include "kernels/embed/embed_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

template <class T>
void ScaleRow(const T* from, int64_t count, float scale, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(to + i, Load(from + i) * Set1(scale));
  for (; i < count; ++i) to[i] = ToF32(from[i]) * scale;
}

}  // namespace

void EmbedRows(const EmbedParams& params, int64_t begin, int64_t end) {
  const Tensor& table = params.table;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t offset = static_cast<int64_t>(TokenOf(params, row)) * table.stride;
    if (table.dtype == DType::kBf16) {
      ScaleRow(static_cast<const Bf16*>(table.data) + offset, table.cols, params.scale,
               params.out.f32(row));
    } else {
      ScaleRow(static_cast<const float*>(table.data) + offset, table.cols, params.scale,
               params.out.f32(row));
    }
  }
}

}  // namespace troupe::TROUPE_ISA
