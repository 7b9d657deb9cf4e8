#include "kernels/embed/embed_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

template <class T>
void CopyRow(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(to + i, Load(from + i));
  for (; i < count; ++i) to[i] = ToF32(from[i]);
}

}  // namespace

void EmbedRows(const EmbedParams& params, int64_t begin, int64_t end) {
  const Tensor& table = params.table;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t offset = static_cast<int64_t>(params.tokens[row]) * table.stride;
    if (table.dtype == DType::kBf16) {
      CopyRow(static_cast<const Bf16*>(table.data) + offset, table.cols, params.out.f32(row));
    } else {
      CopyRow(static_cast<const float*>(table.data) + offset, table.cols, params.out.f32(row));
    }
  }
}

}  // namespace troupe::TROUPE_ISA
