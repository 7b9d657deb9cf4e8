#ifndef TROUPE_KERNELS_EMBED_EMBED_KERNEL_H_
#define TROUPE_KERNELS_EMBED_EMBED_KERNEL_H_

#include "kernels/embed/embed.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Rows [begin, end) of `out`.
TROUPE_DECLARE_KERNEL(EmbedRows, const EmbedParams& params, int64_t begin, int64_t end);

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_KERNEL_H_
