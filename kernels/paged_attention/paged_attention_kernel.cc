#include "kernels/paged_attention/paged_attention_kernel.h"

#include "kernels/attention_tile.h"

namespace troupe::TROUPE_ISA {
namespace {

// The open heads of the tile's tokens.
QueryTile OpenHeads(const PagedAttentionParams& params, const AttentionTile& tile, float* scratch) {
  const int group = params.heads / params.k.kv_heads;
  QueryTile queries = MakeTile(scratch, tile.tokens * group, params.k.head_dim, params.v.head_dim);
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    for (int head = tile.kv_head * group; head < (tile.kv_head + 1) * group; ++head) {
      if (params.mix.At(token, head) == 0) continue;
      AddQuery(queries, params.q, params.scale, token, head, /*weigh=*/true);
    }
  }
  return queries;
}

void Write(const PagedAttentionParams& params, const AttentionTile& tile, QueryTile& queries) {
  const int group = params.heads / params.k.kv_heads;
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    for (int head = tile.kv_head * group; head < (tile.kv_head + 1) * group; ++head) {
      if (params.mix.At(token, head) != 0) continue;
      WriteClosedHead(params.mix, params.out, token, head, params.v.head_dim);
    }
  }
  for (int row = 0; row < queries.rows; ++row) {
    if (params.sinks != nullptr) AddSink(queries, row, params.sinks[queries.query[row].head]);
    WriteHead(queries, row, params.mix, params.out);
  }
}

}  // namespace

void PagedAttentionTile(const PagedAttentionParams& params, const AttentionTile& tile,
                        int64_t first_block, int64_t end_block, float* part, float* scratch) {
  QueryTile queries = OpenHeads(params, tile, scratch);
  if (queries.rows > 0) {
    const CachedHead cached = {
        &params.k, &params.v,
        params.tables.pages + params.batch.slot[tile.row] * params.tables.stride, tile.kv_head};
    const VisibleEntries visible = {.window = params.window};
    AttendCache(queries, cached, visible, params.batch.position, first_block, end_block, part);
  }
  if (part == nullptr) Write(params, tile, queries);
}

void PagedAttentionMerge(const PagedAttentionParams& params, const AttentionTile& tile,
                         const float* parts, int64_t part_stride, float* scratch) {
  QueryTile queries = OpenHeads(params, tile, scratch);
  for (int i = 0; i < tile.parts; ++i) MergePart(queries, parts + i * part_stride);
  Write(params, tile, queries);
}

}  // namespace troupe::TROUPE_ISA
