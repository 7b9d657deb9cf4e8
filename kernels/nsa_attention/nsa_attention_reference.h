// The oracle of kernels/nsa_attention/nsa_attention.h: the formula as it is written there, slow and
// simple.
#ifndef TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_REFERENCE_H_
#define TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_REFERENCE_H_

#include "kernels/nsa_attention/nsa_attention.h"

namespace troupe {

void NsaAttentionReference(const NsaAttentionParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_REFERENCE_H_
