// What the parts of one layer's forward pass run with, for one step.
//
// Thread model and ownership: ModelRunner's; a context borrows everything and lives for one layer.
#ifndef TROUPE_WORKER_LAYER_CONTEXT_H_
#define TROUPE_WORKER_LAYER_CONTEXT_H_

#include <cstdint>

#include "kernels/ops.h"
#include "worker/device_input.h"
#include "worker/loaded_model.h"
#include "worker/model_runner.h"
#include "worker/rank_links.h"
#include "worker/runner_arena.h"

namespace troupe {

class ExpertExchange;

struct LayerContext {
  const LoadedModel& model;
  Ops& ops;
  RunnerArena& arena;
  RunnerTap* tap;  // null: none
  const DeviceInput& input;
  const LoadedLayer& layer;
  RankLinks& links;
  ExpertExchange& exchange;

  int64_t tokens() const { return input.tokens(); }
  float rms_epsilon() const { return model.description.rms_epsilon; }
  const AttentionDescription& attention() const { return layer.description.attention; }
};

// What a sublayer reads, [T, d]: x, which its first operations norm where `norm` says so.
struct SublayerIn {
  Tensor x;
  InputNorm norm;
};

// Where a sublayer puts its result, [T, d], or a tensor-parallel rank its term of it.
struct SublayerOut {
  Tensor tensor;
  bool accumulate = false;  // added to what is there
};

}  // namespace troupe

#endif  // TROUPE_WORKER_LAYER_CONTEXT_H_
