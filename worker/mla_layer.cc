#include "worker/mla_layer.h"

#include "worker/tensor_parts.h"

namespace troupe {
namespace {

Tensor Queries(const LayerContext& context, const Tensor& projected) {
  const LoadedAttention& attention = context.layer.attention;
  const LoadedMla& mla = *attention.mla;
  const int64_t size = context.attention().query_size();
  Tensor q = Columns(projected, 0, size);
  if (mla.q_up != nullptr) {
    const Tensor latent = Columns(projected, 0, mla.q_up->inputs());
    q = Columns(FirstRows(context.arena.mla_queries, context.tokens()), 0, size);
    context.ops.RmsNorm(
        {latent, mla.q_latent_norm.view, context.attention().mla->norm_epsilon, latent});
    context.ops.Linear({latent, mla.q_up.get(), q});
  }
  NormAndRotate(context, q, mla.dims.heads, DeviceTensor(), mla.dims.nope_dim);
  return q;
}

void WriteLatents(const LayerContext& context, const KvLocation& kv, const Tensor& projected) {
  const LoadedMla& mla = *context.layer.attention.mla;
  const Tensor entry =
      Columns(projected, mla.latent_column, mla.dims.latent_dim + mla.dims.rope_dim);
  const Tensor latent = Columns(entry, 0, mla.dims.latent_dim);
  context.ops.RmsNorm(
      {latent, mla.latent_norm.view, context.attention().mla->norm_epsilon, latent});
  NormAndRotate(context, entry, 1, DeviceTensor(), mla.dims.latent_dim);
  context.ops.KvWrite({context.input.batch(), entry, Columns(entry, 0, 0), kv.k, kv.v, kv.tables});
}

}  // namespace

void RunMla(const LayerContext& context, const AttentionState& state, const Tensor& projected,
            const Tensor& attended) {
  const LoadedMla& mla = *context.layer.attention.mla;
  const KvLocation& kv = state.kv[0];
  MlaAttentionParams params;
  params.batch = context.input.batch();
  params.dims = mla.dims;
  params.scale = context.attention().score_scale;
  params.q = Queries(context, projected);
  WriteLatents(context, kv, projected);
  params.latent = kv.k;
  params.tables = kv.tables;
  params.weights = mla.heads.data();
  params.out = attended;
  context.ops.MlaAttention(params);
}

}  // namespace troupe
