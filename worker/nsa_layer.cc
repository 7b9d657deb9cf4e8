#include "worker/nsa_layer.h"

namespace troupe {

void CompressNsa(const LayerContext& context, const AttentionState& state) {
  const LoadedNsa& nsa = *context.layer.attention.nsa;
  const KvLocation& raw = state.kv[kNsaRawIndex];
  NsaCompressParams params;
  params.batch = context.input.batch();
  params.sizes = nsa.sizes;
  params.raw_k = raw.k;
  params.raw_v = raw.v;
  params.raw_tables = raw.tables;
  params.phi_k = nsa.phi_k.view();
  params.phi_v = nsa.phi_v.view();
  params.k_norm = nsa.compressed_k_norm.f32();
  params.eps = context.rms_epsilon();
  params.k = state.compressed.k;
  params.v = state.compressed.v;
  params.tables = state.compressed.tables;
  context.ops.NsaCompress(params);
}

void AttendNsa(const LayerContext& context, const AttentionState& state, const Tensor& q,
               const Tensor& out) {
  const AttentionDescription& description = context.attention();
  const NsaSizes& sizes = context.layer.attention.nsa->sizes;
  NsaSelectParams select;
  select.batch = context.input.batch();
  select.sizes = sizes;
  select.heads = description.heads;
  select.scale = description.score_scale;
  select.q = q;
  select.k = state.compressed.k;
  select.v = state.compressed.v;
  select.tables = state.compressed.tables;
  select.mix = GateMix(context, 0);
  select.out = out;
  select.selected = context.arena.selected.data();
  context.ops.NsaSelect(select);
  if (context.tap != nullptr) {
    const size_t count =
        static_cast<size_t>(context.tokens()) * description.kv_heads * sizes.selected_blocks;
    const auto selected = Fetched(context.ops, context.arena.selected.subspan(0, count));
    context.ops.Synchronize();
    context.tap->OnSelectedBlocks(context.layer.index, selected);
  }

  const KvLocation& selected = state.kv[kNsaSelectedIndex];
  NsaAttentionParams attend;
  attend.batch = context.input.batch();
  attend.heads = description.heads;
  attend.selected_blocks = sizes.selected_blocks;
  attend.scale = select.scale;
  attend.q = q;
  attend.k = selected.k;
  attend.v = selected.v;
  attend.tables = selected.tables;
  attend.selected = select.selected;
  attend.mix = GateMix(context, 1);
  attend.out = out;
  context.ops.NsaAttention(attend);

  AttendPages(context, q, state.kv[kNsaWindowIndex], GateMix(context, 2), out);
}

}  // namespace troupe
