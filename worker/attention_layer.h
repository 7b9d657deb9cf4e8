// A layer's attention, of any kind: project, norm and rotate, write keys and values, attend,
// project back.
//
// Thread model and ownership: ModelRunner's, see worker/layer_context.h.
#ifndef TROUPE_WORKER_ATTENTION_LAYER_H_
#define TROUPE_WORKER_ATTENTION_LAYER_H_

#include "worker/attention_steps.h"

namespace troupe {

// Of what `in` says, which is left as it is.
void RunAttention(const LayerContext& context, const AttentionState& state, const SublayerIn& in,
                  const SublayerOut& out);

}  // namespace troupe

#endif  // TROUPE_WORKER_ATTENTION_LAYER_H_
