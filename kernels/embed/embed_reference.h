// The oracle of kernels/embed/embed.h: the formula as it is written there, slow and simple.
#ifndef TROUPE_KERNELS_EMBED_EMBED_REFERENCE_H_
#define TROUPE_KERNELS_EMBED_EMBED_REFERENCE_H_

#include "kernels/embed/embed.h"

namespace troupe {

void EmbedReference(const EmbedParams& params);

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_REFERENCE_H_
