#ifndef TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_KERNEL_H_
#define TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_KERNEL_H_

#include "kernels/attention_task.h"
#include "kernels/nsa_attention/nsa_attention.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Tokens of one tile at most.
inline constexpr int kNsaTileTokens = 16;

// One tile. A block that several of its tokens selected is loaded once. `scratch`:
// TileScratchFloats.
TROUPE_DECLARE_KERNEL(NsaAttentionTile, const NsaAttentionParams& params, const AttentionTile& tile,
                      float* scratch);

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_ATTENTION_NSA_ATTENTION_KERNEL_H_
