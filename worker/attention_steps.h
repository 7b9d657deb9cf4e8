// The steps that a layer's attention is made of, whatever its kind.
//
// Thread model and ownership: ModelRunner's, see worker/layer_context.h.
#ifndef TROUPE_WORKER_ATTENTION_STEPS_H_
#define TROUPE_WORKER_ATTENTION_STEPS_H_

#include <vector>

#include "worker/kv_pages.h"
#include "worker/layer_context.h"

namespace troupe {

// Where a layer keeps its state.
struct AttentionState {
  std::vector<KvLocation> kv;  // parallel to LoadedAttention::kv
  KvLocation compressed;       // with NSA
};

// `index` is the layer's, as streams name it.
AttentionState LocateState(const KvPages& pages, int index, const LoadedAttention& attention);

// How queries or keys, [T, heads * D], are normed and rotated in place; `norm`, of single heads,
// may be empty. Rope begins with dimension `first_rotated` of each head.
HeadNormRopeParams NormAndRotation(const LayerContext& context, const Tensor& x, int heads,
                                   const DeviceTensor& norm, int first_rotated = 0);

// Norms and rotates queries or keys, [T, heads * D], in place; `norm` may be empty. Rope begins
// with dimension `first_rotated` of each head.
void NormAndRotate(const LayerContext& context, const Tensor& x, int heads,
                   const DeviceTensor& norm, int first_rotated = 0);

// The gates of the layer's heads and the factors that they and `branches` branches come to, from
// what LoadedAttention::in gave. Does nothing where heads are not gated.
void ComputeGates(const LayerContext& context, const Tensor& projected);

// How branch `branch` of the layer's attention, of those ComputeGates knew, puts down its result.
HeadMix GateMix(const LayerContext& context, int branch);

// Attention of q over the pages of `kv`, whole or within the layer's window.
void AttendPages(const LayerContext& context, const Tensor& q, const KvLocation& kv,
                 const HeadMix& mix, const Tensor& out);

}  // namespace troupe

#endif  // TROUPE_WORKER_ATTENTION_STEPS_H_
