// The oracle of kernels/paged_attention/paged_attention.h: the formula as it is written there, slow
// and simple.
#ifndef TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_REFERENCE_H_
#define TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_REFERENCE_H_

#include "kernels/paged_attention/paged_attention.h"

namespace troupe {

void PagedAttentionReference(const PagedAttentionParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_PAGED_ATTENTION_PAGED_ATTENTION_REFERENCE_H_
