// Native sparse attention's own steps: compression of keys and values, and attention over the
// compressed, selected and window branches.
//
// Thread model and ownership: ModelRunner's, see worker/layer_context.h.
#ifndef TROUPE_WORKER_NSA_LAYER_H_
#define TROUPE_WORKER_NSA_LAYER_H_

#include "worker/attention_steps.h"

namespace troupe {

// Compresses what the step's tokens completed, after their raw keys and values were written.
void CompressNsa(const LayerContext& context, const AttentionState& state);

// The branches' attention of q, each by its gate's factor, into `out`.
void AttendNsa(const LayerContext& context, const AttentionState& state, const Tensor& q,
               const Tensor& out);

}  // namespace troupe

#endif  // TROUPE_WORKER_NSA_LAYER_H_
