// A layer's feed-forward network: one gated network, or routed experts and a shared one.
//
// Thread model and ownership: ModelRunner's, see worker/layer_context.h.
#ifndef TROUPE_WORKER_FFN_LAYER_H_
#define TROUPE_WORKER_FFN_LAYER_H_

#include "worker/layer_context.h"

namespace troupe {

// Of x [T, d], which is left as it is.
void RunFfn(const LayerContext& context, const SublayerIn& in, const SublayerOut& out);

}  // namespace troupe

#endif  // TROUPE_WORKER_FFN_LAYER_H_
