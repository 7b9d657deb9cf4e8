#include "kernels/mla_attention/mla_attention_kernel.h"

#include "kernels/attention_tile.h"
#include "kernels/linear/panel_shape.h"

namespace troupe::TROUPE_ISA {
namespace {

constexpr float kOpen = 1;
constexpr HeadMix kMix = {.factor = &kOpen};

void WriteHeads(const QueryTile& queries, const Tensor& out) {
  for (int row = 0; row < queries.rows; ++row) WriteHead(queries, row, kMix, out);
}

// ---- Absorbed ----

QueryTile AbsorbedQueries(const MlaAbsorbedView& view, const AttentionTile& tile, float* scratch) {
  QueryTile queries =
      MakeTile(scratch, tile.tokens * view.heads, view.latent.head_dim, view.latent_dim);
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    for (int head = 0; head < view.heads; ++head) {
      AddQuery(queries, view.q, view.scale, token, head, /*weigh=*/true);
    }
  }
  return queries;
}

// ---- Expanded ----

QueryTile ExpandedQueries(const MlaAttentionParams& params, const AttentionTile& tile,
                          float* scratch) {
  const MlaDims& dims = params.dims;
  QueryTile queries = MakeTile(scratch, tile.tokens, dims.nope_dim + dims.rope_dim, dims.value_dim);
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    AddQuery(queries, params.q, params.scale, token, tile.kv_head, /*weigh=*/true);
  }
  return queries;
}

template <class Row>
void Widen(Row from, int count, float* to) {
  int c = 0;
  for (; c + kLanes <= count; c += kLanes) Store(to + c, Load(from + c));
  if (c < count) Store(to + c, Load(from + c, count - c), count - c);
}

// One head's keys and values of a block, from its latents.
struct Expansion {
  const MlaDims* dims;
  const PanelView* key_up;
  const PanelView* value_up;
  float* latents;  // [kKeyBlock, L]
  float* packed;   // of the latents
  float* keys;     // [kKeyBlock, key_stride]
  int64_t key_stride;

  Expansion(const MlaDims& of, const PanelView& to_keys, const PanelView& to_values, float* scratch)
      : dims(&of), key_up(&to_keys), value_up(&to_values) {
    const int64_t latent_floats = int64_t{kKeyBlock} * PaddedDim(of.latent_dim);
    latents = scratch;
    packed = latents + latent_floats;
    keys = packed + latent_floats;
    key_stride = PaddedDim(of.nope_dim + of.rope_dim);
  }

  static void Product(const PanelView& w, const RowsView& rows, float* out, int64_t stride) {
    constexpr int kPanelOutputs = kPanelVecs * kLanes;
    MultiplyPanels(w, rows, RowsOut{.out = out, .stride = stride},
                   PanelRange{0, (w.outputs + kPanelOutputs - 1) / kPanelOutputs, 0, rows.tiles});
  }

  // `entries` are those of the block, of which the first `count` are wanted.
  template <class Row>
  void Run(const Row* entries, int count, QueryTile& tile) const {
    const int latent = dims->latent_dim;
    for (int i = 0; i < count; ++i) {
      Widen(entries[i], latent, latents + int64_t{i} * latent);
      Widen(entries[i] + latent, dims->rope_dim, keys + i * key_stride + dims->nope_dim);
    }
    constexpr int kTileRows = kMaxTileVecs / kPanelVecs;
    const RowsView rows{.x = latents,
                        .stride = latent,
                        .rows = count,
                        .tiles = (count + kTileRows - 1) / kTileRows,
                        .packed = packed};
    PackRows(*key_up, rows, 0, rows.tiles);
    Product(*key_up, rows, keys, key_stride);
    Product(*value_up, rows, tile.values, tile.value_stride);
  }
};

template <class Row>
void ExpandAndAttend(QueryTile& tile, const CachedHead& cached, const Expansion& expansion,
                     int64_t block) {
  // A query sees everything before it: what a block shows begins with its first entry.
  const int end = VisibleRange(tile).end;
  Row entries[kKeyBlock];
  BlockRows(*cached.k, cached, block, 0, end, entries);
  expansion.Run(entries, end, tile);
  const float* keys[kKeyBlock];
  for (int i = 0; i < kKeyBlock; ++i) {
    keys[i] = expansion.keys + MinOf(i, end - 1) * expansion.key_stride;
  }
  PackKeys(keys, 0, end, tile.key_dim, tile.keys);
  AttendBlock(tile, block, BlockValues<const float*>{tile.values, tile.value_stride});
}

}  // namespace

void MlaAbsorbedTile(const MlaAbsorbedView& view, const AttentionTile& tile, int64_t first_block,
                     int64_t end_block, float* part, float* scratch) {
  QueryTile queries = AbsorbedQueries(view, tile, scratch);
  // Values are the first elements of the keys.
  const CachedHead cached = {&view.latent, &view.latent,
                             view.tables.pages + view.batch.slot[tile.row] * view.tables.stride, 0};
  AttendCache(queries, cached, VisibleEntries(), view.batch.position, first_block, end_block, part);
  if (part == nullptr) WriteHeads(queries, view.out);
}

void MlaAbsorbedMerge(const MlaAbsorbedView& view, const AttentionTile& tile, const float* parts,
                      int64_t part_stride, float* scratch) {
  QueryTile queries = AbsorbedQueries(view, tile, scratch);
  for (int i = 0; i < tile.parts; ++i) MergePart(queries, parts + i * part_stride);
  WriteHeads(queries, view.out);
}

void MlaExpandedTile(const MlaAttentionParams& params, const PanelView& key_up,
                     const PanelView& value_up, const AttentionTile& tile, int64_t first_block,
                     int64_t end_block, float* part, float* scratch) {
  QueryTile queries = ExpandedQueries(params, tile, scratch);
  const Expansion expansion(
      params.dims, key_up, value_up,
      scratch + TileScratchFloats(tile.tokens, queries.key_dim, queries.value_dim));
  // What lies behind values that do not fill their vectors is read, and stays zero.
  Fill(queries.values, int64_t{kKeyBlock} * queries.value_stride, 0);
  const CachedHead cached = {
      &params.latent, &params.latent,
      params.tables.pages + params.batch.slot[tile.row] * params.tables.stride, 0};
  WalkBlocks(queries, VisibleEntries(), params.batch.position, first_block, end_block, part,
             [&](int64_t block) {
               if (block + 2 < end_block) PrefetchRows(params.latent, cached, block + 1, kKeyBlock);
               WithRows(params.latent.dtype, [&]<class Row>() {
                 ExpandAndAttend<Row>(queries, cached, expansion, block);
               });
             });
  if (part == nullptr) WriteHeads(queries, params.out);
}

void MlaExpandedMerge(const MlaAttentionParams& params, const AttentionTile& tile,
                      const float* parts, int64_t part_stride, float* scratch) {
  QueryTile queries = ExpandedQueries(params, tile, scratch);
  for (int i = 0; i < tile.parts; ++i) MergePart(queries, parts + i * part_stride);
  WriteHeads(queries, params.out);
}

}  // namespace troupe::TROUPE_ISA
