#include "kernels/embed/embed_reference.h"

#include "base/check.h"
#include "kernels/element.h"

namespace troupe {

void EmbedReference(const EmbedParams& params) {
  const Tensor& table = params.table;
  CHECK_EQ(table.cols, params.out.cols);
  for (int64_t token = 0; token < params.out.rows; ++token) {
    const uint32_t id = TokenOf(params, token);
    CHECK_LT(id, table.rows);
    for (int64_t c = 0; c < table.cols; ++c) {
      params.out.f32(token)[c] =
          params.scale * LoadElement(table.data, table.dtype, id * table.stride + c);
    }
  }
}

}  // namespace troupe
