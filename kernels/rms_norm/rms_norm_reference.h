// The oracle of kernels/rms_norm/rms_norm.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_RMS_NORM_RMS_NORM_REFERENCE_H_
#define TROUPE_KERNELS_RMS_NORM_RMS_NORM_REFERENCE_H_

#include "kernels/rms_norm/rms_norm.h"

namespace troupe {

void RmsNormReference(const RmsNormParams& params);
void SquareSumsReference(const SquareSumsParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_RMS_NORM_RMS_NORM_REFERENCE_H_
