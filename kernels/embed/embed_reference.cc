#include "kernels/embed/embed_reference.h"

#include "base/check.h"
#include "kernels/element.h"

namespace troupe {

void EmbedReference(const EmbedParams& params) {
  const Tensor& table = params.table;
  CHECK_EQ(table.cols, params.out.cols);
  for (int64_t token = 0; token < params.out.rows; ++token) {
    CHECK_LT(params.tokens[token], table.rows);
    for (int64_t c = 0; c < table.cols; ++c) {
      params.out.f32(token)[c] =
          params.scale *
          LoadElement(table.data, table.dtype, params.tokens[token] * table.stride + c);
    }
  }
}

}  // namespace troupe
