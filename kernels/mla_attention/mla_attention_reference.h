// The oracle of kernels/mla_attention/mla_attention.h: the formulas as they are written there, slow
// and simple. Rows without a given form are expanded.
#ifndef TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_REFERENCE_H_
#define TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_REFERENCE_H_

#include "kernels/mla_attention/mla_attention.h"

namespace troupe {

void MlaAttentionReference(const MlaAttentionParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MLA_ATTENTION_MLA_ATTENTION_REFERENCE_H_
