// Rows added to chosen rows: out[row[i]] += x[i], in f32. No row is chosen twice.
#ifndef TROUPE_KERNELS_ROW_ADD_ROW_ADD_H_
#define TROUPE_KERNELS_ROW_ADD_ROW_ADD_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace troupe {

struct RowAddParams {
  Tensor x;                      // [N, d] f32
  const int32_t* row = nullptr;  // [N], each under out.rows
  Tensor out;                    // [T, d] f32
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_ROW_ADD_ROW_ADD_H_
