// The oracle of kernels/sample/sample.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_REFERENCE_H_
#define TROUPE_KERNELS_SAMPLE_SAMPLE_REFERENCE_H_

#include "kernels/sample/sample.h"

namespace troupe {

void SampleReference(const SampleParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_SAMPLE_REFERENCE_H_
