#include "worker/attention_layer.h"

#include "worker/mla_layer.h"
#include "worker/nsa_layer.h"
#include "worker/tensor_parts.h"

namespace troupe {
namespace {

void WriteKeysAndValues(const LayerContext& context, const AttentionState& state,
                        const Tensor& projected) {
  const AttentionDescription& description = context.attention();
  const LoadedAttention& attention = context.layer.attention;
  for (size_t b = 0; b < attention.kv.size(); ++b) {
    const LoadedKv& kv = attention.kv[b];
    const Tensor k = Columns(projected, kv.k_column, description.key_size());
    const Tensor v = Columns(projected, kv.v_column, description.value_size());
    // NSA's raw keys have no norm, and no NSA layer has rope.
    NormAndRotate(context, k, description.kv_heads, kv.k_norm);
    context.ops.KvWrite(
        {context.input.batch(), k, v, state.kv[b].k, state.kv[b].v, state.kv[b].tables});
  }
  if (attention.nsa.has_value()) CompressNsa(context, state);
}

// From what LoadedAttention::in gave, over pages, to [T, H * Dv].
void AttendToKeysAndValues(const LayerContext& context, const AttentionState& state,
                           const Tensor& projected, const Tensor& attended) {
  const AttentionDescription& description = context.attention();
  const LoadedAttention& attention = context.layer.attention;
  const Tensor q = Columns(projected, 0, description.query_size());
  NormAndRotate(context, q, description.heads, attention.q_norm);
  WriteKeysAndValues(context, state, projected);
  ComputeGates(context, projected);
  if (attention.nsa.has_value()) {
    AttendNsa(context, state, q, attended);
  } else {
    AttendPages(context, q, state.kv[0], GateMix(context, 0), attended);
  }
}

}  // namespace

void RunAttention(const LayerContext& context, const AttentionState& state, const Tensor& x,
                  const SublayerOut& out) {
  const LoadedAttention& attention = context.layer.attention;
  const int64_t tokens = context.tokens();
  const Tensor projected =
      Columns(FirstRows(context.arena.projected, tokens), 0, attention.in->outputs());
  context.ops.Linear(
      {x, attention.in.get(), projected, /*accumulate=*/false, attention.in_bias.data()});
  const Tensor attended =
      Columns(FirstRows(context.arena.attended, tokens), 0, context.attention().attended_size());
  if (attention.mla.has_value()) {
    RunMla(context, state, projected, attended);
  } else {
    AttendToKeysAndValues(context, state, projected, attended);
  }
  context.ops.Linear(
      {attended, attention.out.get(), out.tensor, out.accumulate, attention.out_bias.data()});
}

}  // namespace troupe
