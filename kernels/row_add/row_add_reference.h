// The oracle of kernels/row_add/row_add.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_ROW_ADD_ROW_ADD_REFERENCE_H_
#define TROUPE_KERNELS_ROW_ADD_ROW_ADD_REFERENCE_H_

#include "kernels/row_add/row_add.h"

namespace troupe {

void RowAddReference(const RowAddParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_ROW_ADD_ROW_ADD_REFERENCE_H_
