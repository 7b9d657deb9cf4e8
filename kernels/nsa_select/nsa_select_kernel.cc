#include "kernels/nsa_select/nsa_select_kernel.h"

#include "kernels/attention_tile.h"

namespace troupe::TROUPE_ISA {
namespace {

bool AnyOpen(const NsaSelectParams& params, int token, int first_head, int group) {
  for (int head = first_head; head < first_head + group; ++head) {
    if (params.mix.At(token, head) != 0) return true;
  }
  return false;
}

// All heads of a token's group while any is open: closed ones are only scored. Open ones first, so
// that they are weighed together.
QueryTile ScoredHeads(const NsaSelectParams& params, const AttentionTile& tile, NsaScores scores,
                      float* scratch) {
  const int group = params.heads / params.k.kv_heads;
  const int first_head = tile.kv_head * group;
  QueryTile queries = MakeTile(scratch, tile.tokens * group, params.k.head_dim, params.v.head_dim);
  queries.scores = scores.data;
  queries.score_stride = scores.stride;
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    if (!AnyOpen(params, token, first_head, group)) continue;
    for (int pass = 0; pass < 2; ++pass) {
      const bool open = pass == 0;
      for (int head = first_head; head < first_head + group; ++head) {
        if ((params.mix.At(token, head) != 0) != open) continue;
        AddQuery(queries, params.q, params.scale, token, head, /*weigh=*/open);
      }
    }
  }
  return queries;
}

// P of one token, by entry, up to entry `count`; zero where it sees none. `group` queries from
// first_row on are the heads of its group.
void GroupMass(const QueryTile& queries, int first_row, int group, int64_t begin, int64_t end,
               int64_t count, float* mass) {
  // By head, not by row: which heads are open must not change the order of the sum.
  int row_of_head[kMaxGroupHeads];
  for (int row = first_row; row < first_row + group; ++row) {
    row_of_head[queries.query[row].head % group] = row;
  }
  int64_t e = begin < end ? begin / kLanes * kLanes : 0;
  Fill(mass, e, 0);
  for (; begin < end && e < end; e += kLanes) {
    Vec sum = Zero();
    for (int h = 0; h < group; ++h) {
      const int row = row_of_head[h];
      const Vec score = Load(queries.scores + row * queries.score_stride + e);
      const Vec weight = Exp(score - Set1(queries.total_largest[row]));
      sum = sum + weight / Set1(queries.total_sum[row]);
    }
    Store(mass + e, sum);
  }
  if (e < count) Fill(mass + e, count - e, 0);
}

// The blocks with the highest S so far.
struct Best {
  int count = 0;
  int wanted;
  float score[kMaxSelectedBlocks];
  int32_t block[kMaxSelectedBlocks];

  // Blocks come in ascending order: of equals, the first stays ahead.
  void Offer(float s, int32_t j) {
    if (count == wanted && (wanted == 0 || !(s > score[count - 1]))) return;
    int at = count < wanted ? count++ : count - 1;
    for (; at > 0 && s > score[at - 1]; --at) {
      score[at] = score[at - 1];
      block[at] = block[at - 1];
    }
    score[at] = s;
    block[at] = j;
  }

  void SortByBlock() {
    for (int i = 1; i < count; ++i) {
      const int32_t moved = block[i];
      int at = i;
      for (; at > 0 && block[at - 1] > moved; --at) block[at] = block[at - 1];
      block[at] = moved;
    }
  }
};

// Chooses among the blocks 0 .. own by P.
void ChooseBlocks(const NsaSizes& sizes, int own, const float* mass, int32_t* selected) {
  if (own < sizes.selected_blocks) {
    for (int j = 0; j < sizes.selected_blocks; ++j) selected[j] = j <= own ? j : -1;
    return;
  }
  // In strides: a 64-token block is n long, a compression block k. Compression block i lies at
  // entry i + k - 1, so those that overlap block j are the entries from n * j on.
  const int n = kBlockTokens / sizes.compress_stride;
  const int k = sizes.compress_block / sizes.compress_stride;
  float overlap[2 * kBlockTokens];
  for (int e = 0; e < n + k - 1; ++e) {
    const int i = e - (k - 1);
    overlap[e] = static_cast<float>(MinOf(i + k, n) - MaxOf(i, 0));
  }
  Best best;
  best.wanted = sizes.selected_blocks - sizes.initial_blocks - sizes.local_blocks;
  for (int j = sizes.initial_blocks; j <= own - sizes.local_blocks; ++j) {
    const float* p = mass + int64_t{j} * n;
    float score = 0;
    for (int e = 0; e < n + k - 1; ++e) score += overlap[e] * p[e];
    best.Offer(score, j);
  }
  best.SortByBlock();
  for (int j = 0; j < sizes.initial_blocks; ++j) *selected++ = j;
  for (int i = 0; i < best.count; ++i) *selected++ = best.block[i];
  for (int j = own - sizes.local_blocks + 1; j <= own; ++j) *selected++ = j;
}

// Everything that follows the attention of a tile.
void Finish(const NsaSelectParams& params, const AttentionTile& tile, const QueryTile& queries,
            float* mass) {
  const int group = params.heads / params.k.kv_heads;
  const int first_head = tile.kv_head * group;
  const VisibleEntries visible = CompressedEntries(params.sizes);
  for (int row = 0; row < queries.rows; ++row) {
    if (queries.query[row].weigh != 0) WriteHead(queries, row, params.mix, params.out);
  }
  int row = 0;
  for (int token = tile.first_token; token < tile.first_token + tile.tokens; ++token) {
    for (int head = first_head; head < first_head + group; ++head) {
      if (params.mix.At(token, head) != 0) continue;
      WriteClosedHead(params.mix, params.out, token, head, params.v.head_dim);
    }
    const int64_t list = int64_t{token} * params.k.kv_heads + tile.kv_head;
    int32_t* selected = params.selected + list * params.sizes.selected_blocks;
    if (!AnyOpen(params, token, first_head, group)) {
      for (int i = 0; i < params.sizes.selected_blocks; ++i) selected[i] = -1;
      continue;
    }
    const int64_t position = params.batch.position[token];
    const int own = static_cast<int>(position / kBlockTokens);
    if (own >= params.sizes.selected_blocks) {
      const int64_t count = int64_t{own + 1} * (kBlockTokens / params.sizes.compress_stride) +
                            params.sizes.compress_block / params.sizes.compress_stride;
      GroupMass(queries, row, group, visible.Begin(position), visible.End(position), count, mass);
    }
    ChooseBlocks(params.sizes, own, mass, selected);
    row += group;
  }
}

}  // namespace

void NsaSelectTile(const NsaSelectParams& params, const AttentionTile& tile, int64_t first_block,
                   int64_t end_block, float* part, NsaScores scores, float* scratch) {
  const int group = params.heads / params.k.kv_heads;
  QueryTile queries = ScoredHeads(params, tile, scores, scratch);
  if (queries.rows > 0) {
    const CachedHead cached = {
        &params.k, &params.v,
        params.tables.pages + params.batch.slot[tile.row] * params.tables.stride, tile.kv_head};
    AttendCache(queries, cached, CompressedEntries(params.sizes), params.batch.position,
                first_block, end_block, part);
  }
  if (part != nullptr) return;
  Finish(params, tile, queries,
         scratch + TileScratchFloats(tile.tokens * group, params.k.head_dim, params.v.head_dim));
}

void NsaSelectMerge(const NsaSelectParams& params, const AttentionTile& tile, const float* parts,
                    int64_t part_stride, NsaScores scores, float* scratch) {
  const int group = params.heads / params.k.kv_heads;
  QueryTile queries = ScoredHeads(params, tile, scores, scratch);
  for (int i = 0; i < tile.parts; ++i) MergePart(queries, parts + i * part_stride);
  Finish(params, tile, queries,
         scratch + TileScratchFloats(tile.tokens * group, params.k.head_dim, params.v.head_dim));
}

}  // namespace troupe::TROUPE_ISA
