#include "kernels/nsa_attention/nsa_attention_kernel.h"

#include "kernels/attention_tile.h"

namespace troupe::TROUPE_ISA {
namespace {

static_assert(kKeyBlock == kBlockTokens);

// Walks the blocks that the tokens of a tile selected, in ascending order.
class SelectedBlocks {
 public:
  SelectedBlocks(const NsaAttentionParams& params, const AttentionTile& tile)
      : params_(params), tile_(tile) {}

  // A token none of whose heads is open has no part in the walk.
  void Use(int token) { used_[token - tile_.first_token] = true; }

  // The lowest block not yet visited, -1 when there is none.
  int32_t Lowest() const {
    int32_t lowest = -1;
    for (int i = 0; i < tile_.tokens; ++i) {
      const int32_t block = used_[i] ? At(i) : -1;
      if (block >= 0 && (lowest < 0 || block < lowest)) lowest = block;
    }
    return lowest;
  }

  bool Has(int token, int32_t block) const { return At(token - tile_.first_token) == block; }

  void Pass(int32_t block) {
    for (int i = 0; i < tile_.tokens; ++i) next_[i] += used_[i] && At(i) == block ? 1 : 0;
  }

 private:
  int32_t At(int i) const {
    if (next_[i] == params_.selected_blocks) return -1;
    const int64_t list = int64_t{tile_.first_token + i} * params_.k.kv_heads + tile_.kv_head;
    return params_.selected[list * params_.selected_blocks + next_[i]];
  }

  const NsaAttentionParams& params_;
  const AttentionTile& tile_;
  bool used_[kNsaTileTokens] = {};
  int next_[kNsaTileTokens] = {};
};

void Attend(const NsaAttentionParams& params, const AttentionTile& tile, SelectedBlocks& blocks,
            QueryTile& queries) {
  const CachedHead cached = {
      &params.k, &params.v,
      params.tables.pages + params.batch.slot[tile.row] * params.tables.stride, tile.kv_head};
  const int32_t last_block = params.batch.position[tile.first_token] / kKeyBlock;
  BeginSplit(queries);
  for (int32_t block = blocks.Lowest(); block >= 0; block = blocks.Lowest()) {
    for (int row = 0; row < queries.rows; ++row) {
      Query& query = queries.query[row];
      const int64_t seen = params.batch.position[query.token] + 1 - int64_t{block} * kKeyBlock;
      query.begin = 0;
      query.end = blocks.Has(query.token, block) ? static_cast<int32_t>(MinOf(kKeyBlock, seen)) : 0;
    }
    blocks.Pass(block);
    // The entries of the block after this one exist, all but perhaps the last block's.
    const int32_t next = blocks.Lowest();
    if (next >= 0 && next < last_block) PrefetchBlock(cached, next, kKeyBlock);
    WithRows(params.k.dtype, [&]<class Row>() { LoadAndAttend<Row>(queries, cached, block); });
  }
  EndSplit(queries);
}

}  // namespace

void NsaAttentionTile(const NsaAttentionParams& params, const AttentionTile& tile, float* scratch) {
  const int group = params.heads / params.k.kv_heads;
  QueryTile queries = MakeTile(scratch, tile.tokens * group, params.k.head_dim, params.v.head_dim);
  SelectedBlocks blocks(params, tile);
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    for (int head = tile.kv_head * group; head < (tile.kv_head + 1) * group; ++head) {
      if (params.mix.At(token, head) == 0) {
        WriteClosedHead(params.mix, params.out, token, head, params.v.head_dim);
        continue;
      }
      AddQuery(queries, params.q, params.scale, token, head, /*weigh=*/true);
      blocks.Use(token);
    }
  }
  if (queries.rows == 0) return;
  Attend(params, tile, blocks, queries);
  for (int row = 0; row < queries.rows; ++row) WriteHead(queries, row, params.mix, params.out);
}

}  // namespace troupe::TROUPE_ISA
