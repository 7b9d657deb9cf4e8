// How attention is cut into blocks of threads: pure functions of the step's shape, tested without a
// GPU.
//
// Keys are taken in tiles of 64 entries and parts of 8 tiles; softmax starts anew with each part,
// and parts are merged in order. That holds whether one block walks over all parts of a token or
// each part has a block of its own, so a token's bits do not depend on the choice made here.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_CHOICE_H_
#define TROUPE_KERNELS_CUDA_ATTENTION_CHOICE_H_

#include <algorithm>
#include <cstdint>

namespace troupe {

inline constexpr int kAttentionTile = 64;      // entries
inline constexpr int kAttentionPartTiles = 8;  // tiles of a part
inline constexpr int kAttentionHeads = 8;      // query heads of a block, at most

struct AttentionShape {
  int64_t tokens = 0;
  int kv_heads = 0;
  int group_heads = 0;     // query heads of a KV head
  int64_t most_tiles = 0;  // that any token sees
  int key_dim = 0;
  int value_dim = 0;
  int64_t element_bytes = 4;  // of keys and values
  bool values_in_keys = false;
};

struct AttentionChoice {
  int slices = 1;            // blocks that share out a KV head's query heads
  int parts = 1;             // blocks that share out a token's context; 1: one walks over all of it
  int stages = 1;            // tiles in shared memory at once
  int64_t shared_bytes = 0;  // -1: more than there is
};

// Bytes of a key or a value in shared memory: whole 16 bytes.
constexpr int64_t PaddedRowBytes(int64_t dim, int64_t element_bytes) {
  return (dim * element_bytes + 15) / 16 * 16;
}

// Shared memory of a block: queries, tiles of keys (rows a little apart, so that threads that read
// a column meet in no bank) and values, weights, and some numbers a head.
inline int64_t AttentionSharedBytes(const AttentionShape& shape, int stages) {
  constexpr int64_t kFloatBytes = 4;
  const int64_t key_bytes = PaddedRowBytes(shape.key_dim, shape.element_bytes);
  const int64_t value_bytes =
      shape.values_in_keys ? 0 : PaddedRowBytes(shape.value_dim, shape.element_bytes);
  const int64_t a_head = key_bytes / shape.element_bytes + kAttentionTile + 8;
  return kAttentionHeads * a_head * kFloatBytes +
         stages * kAttentionTile * (key_bytes + 16 + value_bytes);
}

inline AttentionChoice ChooseAttention(const AttentionShape& shape, int multiprocessors) {
  // What a block may have, and what lets two of them share a multiprocessor.
  constexpr int64_t kMostShared = int64_t{226} << 10;
  constexpr int64_t kSharedForTwo = int64_t{112} << 10;
  AttentionChoice choice;
  choice.slices = (shape.group_heads + kAttentionHeads - 1) / kAttentionHeads;
  const int64_t blocks = shape.tokens * shape.kv_heads * choice.slices;
  const int64_t parts = (shape.most_tiles + kAttentionPartTiles - 1) / kAttentionPartTiles;
  // Parts pay for a second pass: only where tokens alone leave multiprocessors idle.
  if (blocks < int64_t{2} * multiprocessors) {
    choice.parts = static_cast<int>(std::clamp<int64_t>(parts, 1, 65535));
  }
  choice.stages = AttentionSharedBytes(shape, 2) <= kSharedForTwo ? 2 : 1;
  choice.shared_bytes = AttentionSharedBytes(shape, choice.stages);
  if (choice.shared_bytes > kMostShared) choice.shared_bytes = -1;
  return choice;
}

// ---- Attention on the matrix units (kernels/cuda/attention_units.cuh) ----
//
// There, parts are short where a context begins, so that the few parts of a short one still spread
// over many multiprocessors, and longer further on, so that a long one has not too many to merge.
// Where a part begins depends on nothing but its number.

// Tiles of a part, by where it begins: first, and from these tiles on.
inline constexpr int kFirstPartTiles = 2;
inline constexpr int kShortPartTiles = 4;
inline constexpr int kMiddlePartTiles = 8;
inline constexpr int kLongPartTiles = 16;
inline constexpr int kShortTile = 16;
inline constexpr int kMiddleTile = 32;
inline constexpr int kLongTile = 128;
// The parts that begin there.
inline constexpr int kShortPart = kShortTile / kFirstPartTiles;
inline constexpr int kMiddlePart = kShortPart + (kMiddleTile - kShortTile) / kShortPartTiles;
inline constexpr int kLongPart = kMiddlePart + (kLongTile - kMiddleTile) / kMiddlePartTiles;

// The part that a tile is in.
constexpr int PartOfTile(int tile) {
  if (tile < kShortTile) return tile / kFirstPartTiles;
  if (tile < kMiddleTile) return kShortPart + (tile - kShortTile) / kShortPartTiles;
  if (tile < kLongTile) return kMiddlePart + (tile - kMiddleTile) / kMiddlePartTiles;
  return kLongPart + (tile - kLongTile) / kLongPartTiles;
}

constexpr int FirstTileOfPart(int part) {
  if (part < kShortPart) return part * kFirstPartTiles;
  if (part < kMiddlePart) return kShortTile + (part - kShortPart) * kShortPartTiles;
  if (part < kLongPart) return kMiddleTile + (part - kMiddlePart) * kMiddlePartTiles;
  return kLongTile + (part - kLongPart) * kLongPartTiles;
}

// Parts of the tiles before `end_tile`.
constexpr int PartsOfTiles(int64_t end_tile) {
  return end_tile <= 0 ? 0 : PartOfTile(static_cast<int>(end_tile - 1)) + 1;
}

// Where there are many sums to a row, parts are merged in groups, in order, and then the groups, in
// order: a block that has whole groups leaves a result each instead of one for every part.
inline constexpr int kGroupTiles = 64;  // whole parts

constexpr int GroupsOfTiles(int64_t end_tile) {
  return static_cast<int>((end_tile + kGroupTiles - 1) / kGroupTiles);
}

// How blocks share out a context: each a part, or as many tiles, which are whole parts.
struct ContextCut {
  int tiles_a_block = 0;  // 0: a part each
  int blocks = 1;         // of threads
};

inline constexpr int kCutTiles = kLongPartTiles;  // blocks of a multiple have whole parts

constexpr int FirstTileOfCut(int tiles_a_block, int block) {
  return tiles_a_block > 0 ? tiles_a_block * block : FirstTileOfPart(block);
}

// For `contexts` contexts of `most_tiles`, with as many blocks of threads `at_once`: the cut that
// would end first if all took the same time a tile, and some more to begin with.
inline ContextCut CutContexts(int64_t contexts, int64_t most_tiles, int64_t at_once) {
  constexpr int64_t kBeginTiles = 2;
  const int parts = std::clamp(PartsOfTiles(most_tiles), 1, 65535);
  ContextCut best = {.tiles_a_block = 0, .blocks = parts};
  if (contexts * parts <= at_once || most_tiles <= kCutTiles) return best;
  int64_t best_tiles =
      (contexts * (most_tiles + parts * kBeginTiles) + at_once - 1) / at_once + kCutTiles / 2;
  // More would leave a context that is much longer than the others to too few.
  constexpr int64_t kMostTiles = 64;
  // Parts are shorter where contexts are.
  const int64_t least_tiles = most_tiles <= kLongTile ? kMiddlePartTiles : kCutTiles;
  for (int64_t tiles = least_tiles; tiles <= kMostTiles; tiles *= 2) {
    const int64_t blocks = (most_tiles + tiles - 1) / tiles;
    const int64_t rounds = (contexts * blocks + at_once - 1) / at_once;
    const int64_t total = rounds * (std::min(tiles, most_tiles) + kBeginTiles);
    if (total < best_tiles && blocks < 65536) {
      best_tiles = total;
      best = {.tiles_a_block = static_cast<int>(tiles), .blocks = static_cast<int>(blocks)};
    }
    if (tiles >= most_tiles) break;
  }
  return best;
}

// Whether blocks that walk over a context each do better than such as share them out. Nothing is
// merged then, which pays where they fill a round of blocks, or two: when some end, the others have
// more of the memory's rate. Not where one context may be much longer than the others.
inline bool StayWhole(int64_t contexts, int64_t most_tiles, int64_t at_once) {
  constexpr int64_t kMostTilesARound = 160;
  const int64_t rounds = (contexts + at_once - 1) / at_once;
  const int64_t least = (rounds == 1 ? 9 : 18) * at_once / 10;
  return contexts >= least && most_tiles <= kMostTilesARound * rounds;
}

inline constexpr int kUnitRows = 64;  // (token, query head) pairs of a warpgroup

struct UnitAttentionShape {
  int64_t tokens = 0;
  int64_t rows = 0;  // sequences
  int kv_heads = 0;
  int group_heads = 0;
  int64_t most_tiles = 0;     // that any token sees
  int value_blocks = 1;       // see UnitBlocks
  bool tokens_alone = false;  // tokens of a sequence see tiles of their own
};

struct UnitAttentionChoice {
  int slices = 1;      // blocks that share out a KV head's query heads
  int warpgroups = 1;  // that share a block's keys and values, kUnitRows each
  int tokens_a_warpgroup = 1;
  int64_t row_blocks = 0;  // blocks of threads for each KV head and part: an upper bound
  int parts = 1;           // 1: a block walks over all of a token's context
  ContextCut cut;          // otherwise
};

// Keys and values in column blocks of 64 channels, as there are kernels for; 0: there is none.
struct UnitBlocks {
  int keys = 0;
  int values = 0;
};
constexpr UnitBlocks FindUnitBlocks(int key_dim, int value_dim) {
  const int keys = (key_dim + 63) / 64;
  const int values = (value_dim + 63) / 64;
  if (keys <= 1 && values <= 1) return {1, 1};
  if (keys <= 2 && values <= 2) return {2, 2};
  if (keys <= 3 && values <= 2) return {3, 2};
  if (keys <= 4 && values <= 4) return {4, 4};
  return {};
}

// Two warpgroups with larger values would have no room for their sums.
constexpr bool UnitsMayPair(int value_blocks) { return value_blocks <= 2; }

// The first of a sequence's blocks; `first_token`: its first in the step. This leaves room for all
// of its tokens whatever the other sequences have, so that every block finds its own by itself.
constexpr int FirstRowBlock(int first_token, int row, int tokens_a_block) {
  return first_token / tokens_a_block + row;
}

// The blocks of rows that have any of the tokens of a launch, and maybe some more.
struct RowBlocks {
  int first = 0;
  int64_t count = 0;
};
constexpr RowBlocks FindRowBlocks(int first_token, int end_token, int64_t rows, bool one_each,
                                  int tokens_a_block) {
  if (one_each) return {first_token, end_token - first_token};
  const int first = FirstRowBlock(first_token, /*row=*/0, tokens_a_block);
  return {first, (end_token - 1) / tokens_a_block + rows - first};
}

inline UnitAttentionChoice ChooseUnitAttention(const UnitAttentionShape& shape,
                                               int multiprocessors) {
  UnitAttentionChoice choice;
  choice.slices = (shape.group_heads + kUnitRows - 1) / kUnitRows;
  const int heads = shape.kv_heads * choice.slices;
  const bool one_each = shape.tokens_alone || shape.tokens == shape.rows;
  if (!one_each) {
    choice.tokens_a_warpgroup = std::max(1, kUnitRows / shape.group_heads);
    // Two share what they load; not where one would mostly be idle, or blocks too few.
    const int64_t blocks = shape.tokens / (2 * choice.tokens_a_warpgroup) * heads;
    const bool long_rows = shape.tokens >= 2 * choice.tokens_a_warpgroup * shape.rows;
    if (UnitsMayPair(shape.value_blocks) && long_rows && blocks >= multiprocessors) {
      choice.warpgroups = 2;
    }
  }
  const int tokens_a_block = choice.tokens_a_warpgroup * choice.warpgroups;
  choice.row_blocks = one_each ? shape.tokens : shape.tokens / tokens_a_block + shape.rows;
  // Two blocks share a multiprocessor where values are not large.
  const int64_t at_once = (UnitsMayPair(shape.value_blocks) ? 2 : 1) * int64_t{multiprocessors};
  if (choice.warpgroups == 1 && !StayWhole(choice.row_blocks * heads, shape.most_tiles, at_once)) {
    choice.parts = std::clamp(PartsOfTiles(shape.most_tiles), 1, 65535);
    choice.cut = CutContexts(choice.row_blocks * heads, shape.most_tiles, at_once);
  }
  return choice;
}

// ---- Attention over latents on the matrix units (kernels/cuda/attention_latent.cuh) ----

inline constexpr int kMostMergedLatentRows = 16;  // of which a block has room for a group's sums
inline constexpr int kMostLatentKeyDim = 576;
inline constexpr int kMostLatentValueDim = 512;
// Smaller values would leave more than half of the sums idle.
inline constexpr int kLeastLatentValueDim = 264;

struct LatentAttentionShape {
  int64_t tokens = 0;
  int64_t rows = 0;  // sequences
  int heads = 0;
  int value_dim = 0;
  int64_t most_tiles = 0;  // that any token sees
};

struct LatentAttentionChoice {
  int slices = 1;  // blocks that share out the query heads, kUnitRows each
  int tokens_a_block = 1;
  int64_t row_blocks = 0;  // blocks of threads for each slice and part: an upper bound
  int parts = 1;
  ContextCut cut;
  bool merges_groups = false;  // blocks have whole groups, and one result for each: `parts`
  int64_t tokens_at_once = 1;  // that a launch is for: all parts' results go to memory
};

inline LatentAttentionChoice ChooseLatentAttention(const LatentAttentionShape& shape,
                                                   int multiprocessors) {
  constexpr int64_t kMostPartialBytes = int64_t{512} << 20;
  LatentAttentionChoice choice;
  choice.slices = (shape.heads + kUnitRows - 1) / kUnitRows;
  choice.row_blocks = shape.tokens;
  if (shape.tokens != shape.rows) {
    choice.tokens_a_block = std::max(1, kUnitRows / shape.heads);
    choice.row_blocks = shape.tokens / choice.tokens_a_block + shape.rows;
  }
  choice.parts = std::clamp(PartsOfTiles(shape.most_tiles), 1, 65535);
  choice.cut = CutContexts(choice.row_blocks * choice.slices, shape.most_tiles, multiprocessors);
  const bool whole_groups = choice.cut.blocks == 1 || (choice.cut.tiles_a_block > 0 &&
                                                       choice.cut.tiles_a_block % kGroupTiles == 0);
  const bool few_rows = shape.heads * choice.tokens_a_block <= kMostMergedLatentRows;
  if (whole_groups && few_rows && shape.most_tiles > 0) {
    choice.merges_groups = true;
    choice.parts = GroupsOfTiles(shape.most_tiles);
  }
  const int64_t a_token = int64_t{shape.heads} * choice.parts * (shape.value_dim + 2) * 4;
  choice.tokens_at_once = std::clamp<int64_t>(kMostPartialBytes / a_token, 1, shape.tokens);
  return choice;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_CHOICE_H_
