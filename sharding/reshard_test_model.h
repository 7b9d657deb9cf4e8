// A small model with experts for tests of layouts. Values.
#ifndef TROUPE_SHARDING_RESHARD_TEST_MODEL_H_
#define TROUPE_SHARDING_RESHARD_TEST_MODEL_H_

#include <vector>

#include "model/description.h"

namespace troupe::testing {

// `layers` layers, the first of them dense, of 8 heads with 4 KV heads and `experts` experts.
inline ModelDescription MoeModel(int layers, int experts) {
  ModelDescription model;
  model.vocab_size = 1024;
  model.hidden_size = 128;
  model.rms_epsilon = 1e-6f;
  model.max_context_tokens = 4096;
  LayerDescription layer;
  layer.attention.heads = 8;
  layer.attention.kv_heads = 4;
  layer.attention.head_dim = 16;
  layer.attention.value_dim = 16;
  layer.attention.score_scale = 0.25f;
  layer.ffn = DenseFfn{.inner_size = 256};
  model.layers.push_back(layer);
  MoeFfn moe;
  moe.experts = experts;
  moe.experts_per_token = 2;
  moe.expert_inner_size = 64;
  layer.ffn = moe;
  model.layers.resize(layers, layer);
  return model;
}

}  // namespace troupe::testing

#endif  // TROUPE_SHARDING_RESHARD_TEST_MODEL_H_
