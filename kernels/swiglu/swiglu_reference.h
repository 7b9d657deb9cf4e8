// The oracle of kernels/swiglu/swiglu.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_SWIGLU_SWIGLU_REFERENCE_H_
#define TROUPE_KERNELS_SWIGLU_SWIGLU_REFERENCE_H_

#include "kernels/swiglu/swiglu.h"

namespace troupe {

void SwigluReference(const SwigluParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SWIGLU_SWIGLU_REFERENCE_H_
