// The oracle of kernels/head_norm_rope/head_norm_rope.h: the formula as it is written there, slow
// and simple.
#ifndef TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_REFERENCE_H_
#define TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_REFERENCE_H_

#include "kernels/head_norm_rope/head_norm_rope.h"

namespace troupe {

void HeadNormRopeReference(const HeadNormRopeParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_NORM_ROPE_HEAD_NORM_ROPE_REFERENCE_H_
