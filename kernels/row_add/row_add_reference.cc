#include "kernels/row_add/row_add_reference.h"

#include "base/check.h"

namespace troupe {

void RowAddReference(const RowAddParams& params) {
  for (int64_t i = 0; i < params.x.rows; ++i) {
    CHECK(params.row[i] >= 0 && params.row[i] < params.out.rows) << params.row[i];
    for (int64_t c = 0; c < params.x.cols; ++c) {
      params.out.f32(params.row[i])[c] += params.x.f32(i)[c];
    }
  }
}

}  // namespace troupe
