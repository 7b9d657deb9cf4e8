// Softmax attention of a tile of queries over blocks of cached entries: what the attention kernels
// share. For *_kernel.cc sources only (kernels/simd/simd.h).
//
// A tile's queries are heads of one KV head's group, of one or more tokens. A block's keys are laid
// out channel by channel once, so that one vector holds the same channel of kLanes entries, and
// serve all queries; closed heads are never added to a tile, so that its work is that of the open
// ones.
//
// Invariant: a query's arithmetic is one fixed sequence of operations on its own visible entries,
// in the order of their positions, block by block and split by split, whatever else is in the tile.
#ifndef TROUPE_KERNELS_ATTENTION_TILE_H_
#define TROUPE_KERNELS_ATTENTION_TILE_H_

#include <cstdint>

#include "kernels/attention_task.h"
#include "kernels/kv_rows.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/transpose.h"
#include "kernels/tensor.h"

namespace troupe::TROUPE_ISA {

inline constexpr float kMinusInfinity = -__builtin_inff();

// Queries that one pass over a block serves, and vectors of keys or channels beside them: their
// product is the number of accumulators.
inline constexpr int kTileQueries = kLanes == 16 ? 4 : 2;
inline constexpr int kTileVecs = 4;
inline constexpr int kBlockVecs = kKeyBlock / kLanes;

inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t MaxOf(int64_t a, int64_t b) { return a > b ? a : b; }

// Keys and values of one KV head of one sequence. Values may be the first elements of longer
// entries: v->head_dim is then the length of an entry.
struct CachedHead {
  const KvStream* k;
  const KvStream* v;
  const uint32_t* pages;
  int kv_head;
};

struct Query {
  int32_t token;  // in the step
  int32_t head;
  int32_t weigh;       // 0: only scores are wanted
  int32_t begin, end;  // entries of the current block that it sees; none where begin >= end
};

// D and Dv are the padded sizes of a key and a value: what lies behind their true sizes is zero in
// keys and values, and without meaning elsewhere.
struct QueryTile {
  int rows = 0;
  int key_dim = 0;
  int value_dim = 0;
  int key_stride = 0;    // D
  int value_stride = 0;  // Dv
  Query* query;          // [rows]
  float* q;              // [rows, D], times the scale
  float* p;              // [rows, kKeyBlock]: scores, then weights
  // The current split's running softmax ...
  float* largest;  // [rows]
  float* sum;      // [rows, kLanes]: each lane its own entries
  float* acc;      // [rows, Dv]
  // ... and that of the splits before it.
  float* total_largest;  // [rows]
  float* total_sum;      // [rows]
  float* total_acc;      // [rows, Dv]
  float* keys;           // [D, kKeyBlock]
  float* values;         // [kKeyBlock, Dv]
  // Scores of row r, entry e of the sequence go to scores[r * score_stride + e].
  float* scores = nullptr;
  int64_t score_stride = 0;
};

// Carves the tile out of TileScratchFloats(max_rows, key_dim, value_dim) floats.
inline QueryTile MakeTile(float* scratch, int max_rows, int key_dim, int value_dim) {
  QueryTile tile;
  const auto take = [&](int64_t floats) {
    float* piece = scratch;
    scratch += (floats + 15) / 16 * 16;
    return piece;
  };
  tile.key_dim = key_dim;
  tile.value_dim = value_dim;
  tile.key_stride = PaddedDim(key_dim);
  tile.value_stride = PaddedDim(value_dim);
  tile.keys = take(int64_t{kKeyBlock} * tile.key_stride);
  tile.values = take(int64_t{kKeyBlock} * tile.value_stride);
  tile.q = take(int64_t{max_rows} * tile.key_stride);
  tile.acc = take(int64_t{max_rows} * tile.value_stride);
  tile.total_acc = take(int64_t{max_rows} * tile.value_stride);
  tile.p = take(int64_t{max_rows} * kKeyBlock);
  tile.sum = take(int64_t{max_rows} * kLanes);
  tile.largest = take(max_rows);
  tile.total_largest = take(max_rows);
  tile.total_sum = take(max_rows);
  tile.query = reinterpret_cast<Query*>(take(int64_t{max_rows} * 5));
  return tile;
}

inline void Fill(float* to, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

inline void AddQuery(QueryTile& tile, const Tensor& q, float scale, int token, int head,
                     bool weigh) {
  const int64_t size = tile.key_dim;
  const int row = tile.rows++;
  tile.query[row] = {token, head, weigh ? 1 : 0, 0, 0};
  const float* from = q.f32(token) + head * size;
  float* to = tile.q + int64_t{row} * tile.key_stride;
  for (int64_t c = 0; c < size; ++c) to[c] = from[c] * scale;
  tile.total_largest[row] = kMinusInfinity;
  tile.total_sum[row] = 0;
  Fill(tile.total_acc + int64_t{row} * tile.value_stride, tile.value_stride, 0);
}

inline void BeginSplit(QueryTile& tile) {
  Fill(tile.largest, tile.rows, kMinusInfinity);
  Fill(tile.sum, int64_t{tile.rows} * kLanes, 0);
  Fill(tile.acc, int64_t{tile.rows} * tile.value_stride, 0);
}

// Merges one split's softmax into the total. A split without visible entries changes nothing.
inline void MergeSplit(QueryTile& tile, int row, float largest, float sum, const float* acc) {
  if (largest == kMinusInfinity) return;
  const float before = tile.total_largest[row];
  const float now = before > largest ? before : largest;
  const Vec old_scale = Exp(Set1(before - now));
  const Vec new_scale = Exp(Set1(largest - now));
  float lanes[kLanes];
  Store(lanes, Set1(tile.total_sum[row]) * old_scale + Set1(sum) * new_scale);
  tile.total_sum[row] = lanes[0];
  tile.total_largest[row] = now;
  float* total = tile.total_acc + int64_t{row} * tile.value_stride;
  for (int c = 0; c < tile.value_stride; c += kLanes) {
    Store(total + c, Load(total + c) * old_scale + Load(acc + c) * new_scale);
  }
}

inline void EndSplit(QueryTile& tile) {
  for (int row = 0; row < tile.rows; ++row) {
    MergeSplit(tile, row, tile.largest[row], Sum(Load(tile.sum + int64_t{row} * kLanes)),
               tile.acc + int64_t{row} * tile.value_stride);
  }
}

// A part is [rows, Dv + 2]: largest, sum, acc.
inline void SavePart(const QueryTile& tile, float* part) {
  for (int row = 0; row < tile.rows; ++row) {
    *part++ = tile.largest[row];
    *part++ = Sum(Load(tile.sum + int64_t{row} * kLanes));
    const float* acc = tile.acc + int64_t{row} * tile.value_stride;
    for (int c = 0; c < tile.value_stride; ++c) *part++ = acc[c];
  }
}

inline void MergePart(QueryTile& tile, const float* part) {
  for (int row = 0; row < tile.rows; ++row, part += tile.value_stride + 2) {
    MergeSplit(tile, row, part[0], part[1], part + 2);
  }
}

// One more score beside those of a query's entries, of a value that is zero.
inline void AddSink(QueryTile& tile, int row, float sink) {
  float lanes[kLanes];
  Store(lanes, Exp(Set1(sink - tile.total_largest[row])));
  tile.total_sum[row] += lanes[0];
}

// Writes o of a query, times its factor, as `mix` says.
inline void WriteHead(const QueryTile& tile, int row, const HeadMix& mix, const Tensor& out) {
  const Query& query = tile.query[row];
  const int size = tile.value_dim;
  const float factor = mix.At(query.token, query.head);
  // No visible entry: o is zero, and so is the sum.
  const Vec scale = Set1(tile.total_sum[row] > 0 ? factor / tile.total_sum[row] : 0);
  const float* o = tile.total_acc + int64_t{row} * tile.value_stride;
  float* to = out.f32(query.token) + int64_t{query.head} * size;
  int c = 0;
  for (; c + kLanes <= size; c += kLanes) {
    Store(to + c, mix.accumulate ? Fma(Load(o + c), scale, Load(to + c)) : Load(o + c) * scale);
  }
  if (const int n = size - c; n > 0) {
    Store(to + c, mix.accumulate ? Fma(Load(o + c), scale, Load(to + c, n)) : Load(o + c) * scale,
          n);
  }
}

inline void WriteClosedHead(const HeadMix& mix, const Tensor& out, int token, int head, int size) {
  if (!mix.accumulate) Fill(out.f32(token) + int64_t{head} * size, size, 0);
}

// ---- One block ----

// Elements [c, c + kLanes) of an entry of `size`, zeros behind its end.
template <class Row>
Vec LoadChannels(Row entry, int c, int size) {
  return c + kLanes <= size ? Load(entry + c) : Load(entry + c, size - c);
}

// Transposes kLanes entries, the first at column `to`, of a block's keys.
template <class Row>
void PackKeyLanes(const Row* rows, int head_dim, float* to) {
  int c = 0;
  if constexpr (!kIsFloats<Row> && !kIsCoded<Row>) {
    // Two channels of bf16 move as one.
    for (; c + 2 * kLanes <= head_dim; c += 2 * kLanes) {
      Vec m[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) m[i] = BitsOf(LoadPairs(rows[i] + c));
      Transpose(m);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        Store(to + (c + 2 * i) * kKeyBlock, Low(PairsOf(m[i])));
        Store(to + (c + 2 * i + 1) * kKeyBlock, High(PairsOf(m[i])));
      }
    }
  }
  for (; c < head_dim; c += kLanes) {
    Vec m[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) m[i] = LoadChannels(rows[i], c, head_dim);
    Transpose(m);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) Store(to + (c + i) * kKeyBlock, m[i]);
  }
}

// Elements of a stream's entries in a block; entries outside [begin, end), which may not exist,
// stand for a neighbour.
template <class Row>
void BlockRows(const KvStream& stream, const CachedHead& cached, int64_t block, int begin, int end,
               Row* rows) {
  const int per_page = stream.entries_per_page;
  for (int first = 0; first < kKeyBlock; first += per_page) {
    if (first + per_page <= begin || first >= end) continue;
    const uint32_t page = cached.pages[(block * kKeyBlock + first) / per_page];
    const HeadRows<Row> head(stream, page, cached.kv_head);
    const int64_t offset = (block * kKeyBlock + first) % per_page;
    const int count = per_page < kKeyBlock ? per_page : kKeyBlock;
    for (int i = 0; i < count; ++i) rows[first + i] = head.At(offset + i);
  }
  for (int i = 0; i < begin; ++i) rows[i] = rows[begin];
  for (int i = end; i < kKeyBlock; ++i) rows[i] = rows[end - 1];
}

// Asks for a block's entries up to `end` early: one page's lie together, the next page's do not,
// and no hardware foresees where.
inline void PrefetchRows(const KvStream& stream, const CachedHead& cached, int64_t block, int end) {
  const int per_page = stream.entries_per_page;
  const int64_t row_bytes = stream.head_dim * BytesOf(stream.dtype);
  for (int first = 0; first < end; first += per_page) {
    const int64_t entry = block * kKeyBlock + first;
    const std::byte* head = stream.Head(cached.pages[entry / per_page], cached.kv_head);
    const int64_t begin = entry % per_page * row_bytes;
    const int64_t bytes = MinOf(per_page, end - first) * row_bytes;
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(head + begin + at, 0, 2);
  }
}

inline void PrefetchBlock(const CachedHead& cached, int64_t block, int end) {
  PrefetchRows(*cached.k, cached, block, end);
  if (cached.v->base != cached.k->base) PrefetchRows(*cached.v, cached, block, end);
}

template <class Row>
void PackKeys(const Row* rows, int begin, int end, int head_dim, float* keys) {
  for (int lane = begin / kLanes * kLanes; lane < end; lane += kLanes) {
    PackKeyLanes(rows + lane, head_dim, keys + lane);
  }
}

template <class Row>
void PackValues(const Row* rows, int begin, int end, const QueryTile& tile) {
  const int size = tile.value_dim;
  for (int i = begin; i < end; ++i) {
    float* to = tile.values + int64_t{i} * tile.value_stride;
    int c = 0;
    for (; c < size; c += kLanes) Store(to + c, LoadChannels(rows[i], c, size));
    for (; c < tile.value_stride; c += kLanes) Store(to + c, Zero());
  }
}

// Scores of M queries with kLanes * N entries, channel after channel.
template <int M, int N>
void ScoreEntries(const QueryTile& tile, const int* rows, int first) {
  const int64_t size = tile.key_dim;
  const float* q[M];
  Vec acc[M][N];
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    q[r] = tile.q + int64_t{rows[r]} * tile.key_stride;
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) acc[r][i] = Zero();
  }
  const float* key = tile.keys + first;
  for (int64_t c = 0; c < size; ++c, key += kKeyBlock) {
    Vec k[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) k[i] = Load(key + i * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) {
      const Vec x = Set1(q[r][c]);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) acc[r][i] = Fma(x, k[i], acc[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      Store(tile.p + int64_t{rows[r]} * kKeyBlock + first + i * kLanes, acc[r][i]);
    }
  }
}

// Turns the scores of a row into weights relative to its largest score so far. The vectors
// [first, last) cover the entries that it sees.
inline void WeighScores(QueryTile& tile, int row, int64_t block, int first, int last) {
  const Query& query = tile.query[row];
  float* p = tile.p + int64_t{row} * kKeyBlock;
  for (int i = first * kLanes; i < query.begin; ++i) p[i] = kMinusInfinity;
  for (int i = query.end; i < last * kLanes; ++i) p[i] = kMinusInfinity;
  Vec top = Load(p + first * kLanes);
  for (int i = first + 1; i < last; ++i) top = Max(top, Load(p + i * kLanes));
  if (tile.scores != nullptr) {
    float* scores = tile.scores + row * tile.score_stride + block * kKeyBlock;
    for (int i = first; i < last; ++i) Store(scores + i * kLanes, Load(p + i * kLanes));
  }

  float* sum = tile.sum + int64_t{row} * kLanes;
  Vec weights = Load(sum);
  const float largest = ReduceMax(top);
  if (largest > tile.largest[row]) {
    const Vec shrink = Exp(Set1(tile.largest[row] - largest));
    tile.largest[row] = largest;
    weights = weights * shrink;
    float* acc = tile.acc + int64_t{row} * tile.value_stride;
    for (int c = 0; c < tile.value_stride; c += kLanes) Store(acc + c, Load(acc + c) * shrink);
  }
  const Vec reference = Set1(tile.largest[row]);
  for (int i = first; i < last; ++i) {
    const Vec weight = Exp(Load(p + i * kLanes) - reference);
    Store(p + i * kLanes, weight);
    weights = weights + weight;
  }
  Store(sum, weights);
}

template <int M>
void ScoreRows(QueryTile& tile, const int* rows, int64_t block) {
  int begin = kKeyBlock;
  int end = 0;
  for (int r = 0; r < M; ++r) {
    begin = static_cast<int>(MinOf(begin, tile.query[rows[r]].begin));
    end = static_cast<int>(MaxOf(end, tile.query[rows[r]].end));
  }
  const int first = begin / kLanes;
  const int last = (end + kLanes - 1) / kLanes;
  int i = first;
  for (; i + kTileVecs <= last; i += kTileVecs) ScoreEntries<M, kTileVecs>(tile, rows, i * kLanes);
  for (; i + 2 <= last; i += 2) ScoreEntries<M, 2>(tile, rows, i * kLanes);
  for (; i < last; ++i) ScoreEntries<M, 1>(tile, rows, i * kLanes);
  for (int r = 0; r < M; ++r) WeighScores(tile, rows[r], block, first, last);
}

// Values of a block: entry e's begin at data + e * stride.
template <class Row>
struct BlockValues {
  Row data;
  int64_t stride;
};

// Adds the weighted values of entries [begin, end) to N vectors of channels of M queries.
template <int M, int N, class Row>
void WeighValues(const QueryTile& tile, const int* rows, const BlockValues<Row>& values,
                 int channel, int begin, int end) {
  const int64_t size = tile.value_stride;
  const float* p[M];
  Vec acc[M][N];
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    p[r] = tile.p + int64_t{rows[r]} * kKeyBlock;
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) acc[r][i] = Load(tile.acc + rows[r] * size + channel + i * kLanes);
  }
  for (int e = begin; e < end; ++e) {
    Vec v[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      v[i] = Load(values.data + e * values.stride + channel + i * kLanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) {
      const Vec x = Set1(p[r][e]);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) acc[r][i] = Fma(x, v[i], acc[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) Store(tile.acc + rows[r] * size + channel + i * kLanes, acc[r][i]);
  }
}

template <int M, class Row>
void WeighRows(const QueryTile& tile, const int* rows, const BlockValues<Row>& values) {
  const int begin = tile.query[rows[0]].begin;
  const int end = tile.query[rows[0]].end;
  int c = 0;
  for (; c + kTileVecs * kLanes <= tile.value_stride; c += kTileVecs * kLanes) {
    WeighValues<M, kTileVecs>(tile, rows, values, c, begin, end);
  }
  for (; c < tile.value_stride; c += kLanes) WeighValues<M, 1>(tile, rows, values, c, begin, end);
}

// Calls one<M>(rows) with M = count.
template <class Function>
inline void WithCount(int count, const Function& one) {
  if (count == 1) one.template operator()<1>();
  if (count == 2) one.template operator()<2>();
  if constexpr (kTileQueries == 4) {
    if (count == 3) one.template operator()<3>();
    if (count == 4) one.template operator()<4>();
  }
}

// Scores all rows against the packed keys, then adds the values.
template <class Row>
void AttendBlock(QueryTile& tile, int64_t block, const BlockValues<Row>& values) {
  int rows[kTileQueries];
  int count = 0;
  const auto score = [&] {
    WithCount(count, [&]<int M>() { ScoreRows<M>(tile, rows, block); });
    count = 0;
  };
  for (int row = 0; row < tile.rows; ++row) {
    if (tile.query[row].begin >= tile.query[row].end) continue;
    rows[count++] = row;
    if (count == kTileQueries) score();
  }
  score();

  const auto weigh = [&] {
    WithCount(count, [&]<int M>() { WeighRows<M>(tile, rows, values); });
    count = 0;
  };
  for (int row = 0; row < tile.rows; ++row) {
    const Query& query = tile.query[row];
    if (query.begin >= query.end || query.weigh == 0) continue;
    // Rows of a pass see the same entries: each its own, and no others.
    const bool same = count == 0 || (query.begin == tile.query[rows[0]].begin &&
                                     query.end == tile.query[rows[0]].end);
    if (!same) weigh();
    rows[count++] = row;
    if (count == kTileQueries) weigh();
  }
  weigh();
}

// Entries of the current block that any of the tile's queries sees; none where begin >= end.
struct BlockRange {
  int begin;
  int end;
};

inline BlockRange VisibleRange(const QueryTile& tile) {
  int64_t begin = kKeyBlock;
  int64_t end = 0;
  for (int row = 0; row < tile.rows; ++row) {
    const Query& query = tile.query[row];
    if (query.begin >= query.end) continue;
    begin = MinOf(begin, query.begin);
    end = MaxOf(end, query.end);
  }
  return {static_cast<int>(begin), static_cast<int>(end)};
}

// Loads a block and attends to it, after each query's begin and end have been set.
template <class Row>
void LoadAndAttend(QueryTile& tile, const CachedHead& cached, int64_t block) {
  const auto [begin, end] = VisibleRange(tile);
  if (begin >= end) return;
  Row rows[kKeyBlock];
  BlockRows(*cached.k, cached, block, begin, end, rows);
  PackKeys(rows, begin, end, tile.key_dim, tile.keys);
  BlockRows(*cached.v, cached, block, begin, end, rows);
  if constexpr (!kIsCoded<Row>) {
    // Few queries: widening where the values are used is cheaper than packing them.
    if (cached.v->entries_per_page >= kKeyBlock && tile.value_dim == tile.value_stride &&
        (kIsFloats<Row> || tile.rows <= kTileQueries)) {
      const int64_t stride = cached.v->head_dim;
      AttendBlock(tile, block, BlockValues<Row>{rows[begin] - begin * stride, stride});
      return;
    }
  }
  PackValues(rows, begin, end, tile);
  AttendBlock(tile, block, BlockValues<const float*>{tile.values, tile.value_stride});
}

// Walks the key blocks [first_block, end_block): sets which entries of each the queries see, calls
// attend(block), and merges split after split; with `part`, the one split is saved there instead.
template <class Attend>
void WalkBlocks(QueryTile& tile, const VisibleEntries& visible, const int32_t* position,
                int64_t first_block, int64_t end_block, float* part, const Attend& attend) {
  constexpr int64_t kSplitBlocks = kSplitEntries / kKeyBlock;
  for (int64_t block = first_block; block < end_block; ++block) {
    if (block == first_block || block % kSplitBlocks == 0) BeginSplit(tile);
    for (int row = 0; row < tile.rows; ++row) {
      Query& query = tile.query[row];
      const int64_t at = position[query.token];
      const int64_t first = block * kKeyBlock;
      query.begin = static_cast<int32_t>(MaxOf(0, visible.Begin(at) - first));
      query.end = static_cast<int32_t>(MinOf(kKeyBlock, visible.End(at) - first));
    }
    attend(block);
    const bool split_ends = block + 1 == end_block || (block + 1) % kSplitBlocks == 0;
    if (split_ends && part == nullptr) EndSplit(tile);
  }
  if (part != nullptr) SavePart(tile, part);
}

// Attends to the visible entries in the key blocks [first_block, end_block) of a cache.
template <class Row>
void AttendBlocks(QueryTile& tile, const CachedHead& cached, const VisibleEntries& visible,
                  const int32_t* position, int64_t first_block, int64_t end_block, float* part) {
  WalkBlocks(tile, visible, position, first_block, end_block, part, [&](int64_t block) {
    // Not the last one, of which some entries may not exist.
    if (block + 2 < end_block) PrefetchBlock(cached, block + 1, kKeyBlock);
    LoadAndAttend<Row>(tile, cached, block);
  });
}

// AttendBlocks for the dtype of the cache.
inline void AttendCache(QueryTile& tile, const CachedHead& cached, const VisibleEntries& visible,
                        const int32_t* position, int64_t first_block, int64_t end_block,
                        float* part) {
  WithRows(cached.k->dtype, [&]<class Row>() {
    AttendBlocks<Row>(tile, cached, visible, position, first_block, end_block, part);
  });
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_ATTENTION_TILE_H_
