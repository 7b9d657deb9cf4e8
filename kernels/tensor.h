// Views of dense tensors and of paged state, as kernels see them.
//
// Thread model: plain values; the memory they point at is written by one operation at a time.
// Ownership: views own nothing; see Buffer in kernels/ops.h for memory and ModelRunner for
// lifetimes. Invariants: a Tensor is row-major and rows do not overlap.
//
// Symbols used throughout kernels/:
//   T  tokens of a step, all sequences one after another     R  rows: sequences in the step
//   d  hidden size      H  query heads      G  KV heads      D  head size
//   E  experts          V  vocabulary
#ifndef TROUPE_KERNELS_TENSOR_H_
#define TROUPE_KERNELS_TENSOR_H_

#include <cstddef>
#include <cstdint>

namespace troupe {

// kE4M3: only keys and values in pages, see KvStream.
enum class DType : uint8_t { kF32, kBf16, kE4M3 };

constexpr int64_t BytesOf(DType dtype) {
  if (dtype == DType::kE4M3) return 1;
  return dtype == DType::kF32 ? 4 : 2;
}

// Of the scale that each row of a KvStream has beside its elements.
constexpr int64_t ScaleBytesOf(DType dtype) { return dtype == DType::kE4M3 ? 1 : 0; }

// [rows, cols], row-major; `stride` elements from one row to the next.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* f32(int64_t row = 0) const { return static_cast<float*>(data) + row * stride; }
};

// The sequences of one step. Row r holds the tokens [first[r], first[r + 1]) of the step, which are
// the tokens [start[r], start[r] + count) of its sequence.
struct BatchView {
  int rows = 0;
  int tokens = 0;
  const uint32_t* slot = nullptr;      // [R] the sequence's row in every block table
  const int32_t* start = nullptr;      // [R] position of the row's first token
  const int32_t* first = nullptr;      // [R + 1]
  const int32_t* position = nullptr;   // [T]
  const int32_t* token_row = nullptr;  // [T]
  // Tokens of the longest row's sequence, this step's among them; 0: not known. The only number
  // here that says how much there is to read: devices do not show the caller the arrays.
  int longest = 0;
};

// A group's block tables: block b of the sequence in slot s lies in page pages[s * stride + b]. A
// block behind a window may hold any value and is never read.
struct BlockTables {
  const uint32_t* pages = nullptr;
  int64_t stride = 0;
};

// The keys, or the values, of one branch of one layer in the pages of a state group. Entry e of a
// page, KV head g: D elements at base + page * page_bytes + (g * entries_per_page + e) * D
// elements.
//
// kE4M3: the elements are codes, and behind those of all heads lies a byte for each row, in the
// same order: the power of two that its codes are multiplied with (kernels/e4m3.h).
struct KvStream {
  std::byte* base = nullptr;
  int64_t page_bytes = 0;
  int entries_per_page = 0;
  int kv_heads = 0;
  int head_dim = 0;
  DType dtype = DType::kF32;

  std::byte* Head(uint32_t page, int head) const {
    return base + page * page_bytes +
           static_cast<int64_t>(head) * entries_per_page * head_dim * BytesOf(dtype);
  }
  // kE4M3: the scales of the head's entries.
  std::byte* Scales(uint32_t page, int head) const {
    return Head(page, kv_heads) + static_cast<int64_t>(head) * entries_per_page;
  }
};

// What keys and values are for, and their sizes.
enum class KvReader : uint8_t { kPagedAttention, kLatentAttention, kNsa };
struct KvUse {
  KvReader reader = KvReader::kPagedAttention;
  int key_dim = 0;
  int value_dim = 0;
};

// Tokens a KV block covers, in every group.
inline constexpr int kBlockTokens = 64;

// Where an attention branch puts its result: for each token t and head h
//     out[t, h] = (accumulate ? out[t, h] : 0) + factor[t * token_stride + h * head_stride] * o[t,
//     h]
// A factor of exactly zero means that the head is closed: its attention is not computed.
struct HeadMix {
  const float* factor = nullptr;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  bool accumulate = false;

  float At(int64_t token, int64_t head) const {
    return factor[token * token_stride + head * head_stride];
  }
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_TENSOR_H_
