// The oracle of kernels/nsa_select/nsa_select.h: the formula as it is written there, slow and
// simple.
#ifndef TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_REFERENCE_H_
#define TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_REFERENCE_H_

#include "kernels/nsa_select/nsa_select.h"

namespace troupe {

void NsaSelectReference(const NsaSelectParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_SELECT_NSA_SELECT_REFERENCE_H_
