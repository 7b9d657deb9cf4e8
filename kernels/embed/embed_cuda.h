#ifndef TROUPE_KERNELS_EMBED_EMBED_CUDA_H_
#define TROUPE_KERNELS_EMBED_EMBED_CUDA_H_

#include "kernels/embed/embed.h"

namespace troupe {

struct CudaContext;

void EmbedCuda(const EmbedParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_EMBED_EMBED_CUDA_H_
