#include "worker/attention_steps.h"

#include <algorithm>

#include "worker/tensor_parts.h"

namespace troupe {

AttentionState LocateState(const KvPages& pages, int index, const LoadedAttention& attention) {
  AttentionState state;
  for (const LoadedKv& kv : attention.kv) state.kv.push_back(pages.Locate(index, kv.branch));
  if (attention.nsa.has_value()) {
    state.compressed = pages.Locate(index, KvBranch::kNsaCompressed);
  }
  return state;
}

HeadNormRopeParams NormAndRotation(const LayerContext& context, const Tensor& x, int heads,
                                   const DeviceTensor& norm, int first_rotated) {
  const AttentionDescription& description = context.attention();
  const DeviceTensor& inverse_frequency = context.layer.attention.inverse_frequency;
  HeadNormRopeParams params;
  params.x = x;
  params.heads = heads;
  params.head_dim = static_cast<int>(x.cols / heads);
  params.norm_weight = norm.empty() ? nullptr : norm.f32();
  params.eps = context.rms_epsilon();
  params.inverse_frequency = inverse_frequency.empty() ? nullptr : inverse_frequency.f32();
  params.position = context.input.batch().position;
  params.first_rotated = first_rotated;
  params.rotated_dims = description.rope.rotated_dims;
  params.interleaved = description.rope.kind == RopeKind::kInterleaved;
  params.amplitude = description.rope.amplitude;
  return params;
}

namespace {

// Norms x [T, all ranks' heads], of which this rank holds some.
void NormFullWidth(const LayerContext& context, const Tensor& x, const DeviceTensor& norm) {
  // Copies of KV heads count alike on all ranks, and leave the mean as it is.
  Communicator& tp = *context.links.tp;
  float* sums = context.arena.square_sums.data();
  context.ops.SquareSums({x, sums});
  tp.AllReduceSum(sums, x.rows);
  context.ops.RmsNorm({.x = x,
                       .weight = norm.view,
                       .eps = context.rms_epsilon(),
                       .out = x,
                       .square_sums = sums,
                       .parts = tp.size()});
}

}  // namespace

void NormAndRotate(const LayerContext& context, const Tensor& x, int heads,
                   const DeviceTensor& norm, int first_rotated) {
  const bool full_width = context.attention().qk_norm == QkNorm::kFullWidth;
  if (full_width && !norm.empty()) NormFullWidth(context, x, norm);
  const DeviceTensor none;
  const HeadNormRopeParams params =
      NormAndRotation(context, x, heads, full_width ? none : norm, first_rotated);
  if (params.norm_weight == nullptr && params.inverse_frequency == nullptr) return;
  context.ops.HeadNormRope(params);
}

void ComputeGates(const LayerContext& context, const Tensor& projected) {
  const LoadedAttention& attention = context.layer.attention;
  if (attention.head_gate_up == nullptr) return;
  const int64_t heads = attention.head_gate_up->outputs();
  RunnerArena& arena = context.arena;
  const int64_t tokens = context.tokens();
  const int64_t inner = attention.head_gate_up->inputs();
  const Tensor gate_inner = Columns(FirstRows(arena.gate_inner, tokens), 0, inner);
  const Tensor gate_logits = Columns(FirstRows(arena.gate_logits, tokens), 0, heads);
  context.ops.Swiglu({Columns(projected, attention.head_gate_column, inner), gate_inner});
  context.ops.Linear({gate_inner, attention.head_gate_up.get(), gate_logits});

  HeadGateParams params;
  params.batch = context.input.batch();
  params.heads = static_cast<int>(heads);
  params.gate_logits = gate_logits;
  if (attention.nsa.has_value()) {
    params.branches = kNsaBranches;
    params.branch_logits =
        Columns(projected, attention.nsa->branch_gate_column, heads * kNsaBranches);
  }
  params.rule = context.input.gate_rules();
  params.gates = Columns(FirstRows(arena.gates, tokens), 0, heads);
  params.factors =
      Columns(FirstRows(arena.factors, tokens), 0, heads * std::max(params.branches, 1));
  params.closed = arena.closed.data() + context.input.first_row();
  context.ops.HeadGate(params);
  if (context.tap != nullptr) {
    const Tensor gates = Fetched(context.ops, params.gates);
    context.ops.Synchronize();
    context.tap->OnGates(context.layer.index, gates);
  }
}

HeadMix GateMix(const LayerContext& context, int branch) {
  const LoadedAttention& attention = context.layer.attention;
  HeadMix mix;
  if (attention.head_gate_up == nullptr) {
    mix.factor = context.arena.one;
    return mix;
  }
  mix.head_stride = attention.nsa.has_value() ? kNsaBranches : 1;
  mix.factor = context.arena.factors.f32() + attention.first_gate * mix.head_stride + branch;
  mix.token_stride = context.arena.factors.stride;
  mix.accumulate = branch > 0;
  return mix;
}

void AttendPages(const LayerContext& context, const Tensor& q, const KvLocation& kv,
                 const HeadMix& mix, const Tensor& out) {
  const AttentionDescription& description = context.attention();
  const DeviceTensor& sinks = context.layer.attention.sinks;
  PagedAttentionParams params;
  params.batch = context.input.batch();
  params.heads = description.heads;
  params.window = description.kind == AttentionKind::kFull ? 0 : description.window_tokens;
  params.scale = description.score_scale;
  params.q = q;
  params.k = kv.k;
  params.v = kv.v;
  params.tables = kv.tables;
  params.mix = mix;
  params.out = out;
  params.sinks = sinks.empty() ? nullptr : sinks.f32();
  context.ops.PagedAttention(params);
}

}  // namespace troupe
