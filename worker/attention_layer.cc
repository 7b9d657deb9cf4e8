#include "worker/attention_layer.h"

#include "worker/mla_layer.h"
#include "worker/nsa_layer.h"
#include "worker/tensor_parts.h"

namespace troupe {
namespace {

KvWriteParams KvWriteOf(const LayerContext& context, const AttentionState& state, size_t branch,
                        const Tensor& projected) {
  const AttentionDescription& description = context.attention();
  const LoadedKv& kv = context.layer.attention.kv[branch];
  return {context.input.batch(),
          Columns(projected, kv.k_column, description.key_size()),
          Columns(projected, kv.v_column, description.value_size()),
          state.kv[branch].k,
          state.kv[branch].v,
          state.kv[branch].tables};
}

// NSA's branches, and keys that are normed over all heads.
void WriteBranches(const LayerContext& context, const AttentionState& state,
                   const Tensor& projected) {
  const LoadedAttention& attention = context.layer.attention;
  for (size_t b = 0; b < attention.kv.size(); ++b) {
    const KvWriteParams write = KvWriteOf(context, state, b, projected);
    // NSA's raw keys have no norm, and no NSA layer has rope.
    NormAndRotate(context, write.k, context.attention().kv_heads, attention.kv[b].k_norm);
    context.ops.KvWrite(write);
  }
  if (attention.nsa.has_value()) CompressNsa(context, state);
}

void NormRotateAndWrite(const LayerContext& context, const AttentionState& state, const Tensor& q,
                        const Tensor& projected) {
  const AttentionDescription& description = context.attention();
  const LoadedAttention& attention = context.layer.attention;
  if (attention.kv.size() > 1 || description.qk_norm == QkNorm::kFullWidth) {
    NormAndRotate(context, q, description.heads, attention.q_norm);
    return WriteBranches(context, state, projected);
  }
  const KvWriteParams write = KvWriteOf(context, state, 0, projected);
  context.ops.QkvWrite(
      {NormAndRotation(context, q, description.heads, attention.q_norm),
       NormAndRotation(context, write.k, description.kv_heads, attention.kv[0].k_norm), write});
}

// From what LoadedAttention::in gave, over pages, to [T, H * Dv].
void AttendToKeysAndValues(const LayerContext& context, const AttentionState& state,
                           const Tensor& projected, const Tensor& attended) {
  const LoadedAttention& attention = context.layer.attention;
  const Tensor q = Columns(projected, 0, context.attention().query_size());
  NormRotateAndWrite(context, state, q, projected);
  ComputeGates(context, projected);
  if (attention.nsa.has_value()) {
    AttendNsa(context, state, q, attended);
  } else {
    AttendPages(context, q, state.kv[0], GateMix(context, 0), attended);
  }
}

}  // namespace

void RunAttention(const LayerContext& context, const AttentionState& state, const SublayerIn& in,
                  const SublayerOut& out) {
  const LoadedAttention& attention = context.layer.attention;
  const int64_t tokens = context.tokens();
  const Tensor projected =
      Columns(FirstRows(context.arena.projected, tokens), 0, attention.in->outputs());
  context.ops.Linear({in.x, attention.in.get(), projected, /*accumulate=*/false,
                      attention.in_bias.data(), in.norm});
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
