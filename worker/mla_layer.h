// Multi-head latent attention's own steps: queries, perhaps by a latent of their own, the latent
// that is kept, and attention over latents.
//
// Thread model and ownership: ModelRunner's, see worker/layer_context.h.
#ifndef TROUPE_WORKER_MLA_LAYER_H_
#define TROUPE_WORKER_MLA_LAYER_H_

#include "worker/attention_steps.h"

namespace troupe {

// From what LoadedAttention::in gave to `attended` [T, H * value_dim]; the step's latents are
// written on the way.
void RunMla(const LayerContext& context, const AttentionState& state, const Tensor& projected,
            const Tensor& attended);

}  // namespace troupe

#endif  // TROUPE_WORKER_MLA_LAYER_H_
