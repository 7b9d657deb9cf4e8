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

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_CHOICE_H_
