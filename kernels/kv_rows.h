// Rows of keys and values in pages, whatever their dtype, as vectors: what the kernels that read
// and write them share. For *_kernel.cc sources only (kernels/simd/simd.h).
//
// A Row is where the elements of one entry lie: `row + c` is the same from channel c on, Load(row)
// reads kLanes of its numbers, and Load(row, n) the first n.
#ifndef TROUPE_KERNELS_KV_ROWS_H_
#define TROUPE_KERNELS_KV_ROWS_H_

#include <cstdint>

#include "kernels/e4m3.h"
#include "kernels/simd/simd.h"
#include "kernels/tensor.h"

namespace troupe::TROUPE_ISA {

struct CodedRow {
  const E4M3* codes;
  float scale;
};
inline CodedRow operator+(CodedRow row, int64_t channels) {
  return {row.codes + channels, row.scale};
}
inline Vec Load(CodedRow row) { return Load(row.codes) * Set1(row.scale); }
inline Vec Load(CodedRow row, int n) { return Load(row.codes, n) * Set1(row.scale); }

template <class Row>
inline constexpr bool kIsCoded = false;
template <>
inline constexpr bool kIsCoded<CodedRow> = true;
// Elements that may be read where they lie, at any row, from the first one on.
template <class Row>
inline constexpr bool kIsFloats = false;
template <>
inline constexpr bool kIsFloats<const float*> = true;

// Entry `index` of a page, for the head whose elements and scales these are.
template <class Row>
struct HeadRows {
  Row elements;
  int head_dim;

  HeadRows(const KvStream& stream, uint32_t page, int head)
      : elements(reinterpret_cast<Row>(stream.Head(page, head))), head_dim(stream.head_dim) {}
  Row At(int64_t index) const { return elements + index * head_dim; }
};
template <>
struct HeadRows<CodedRow> {
  const E4M3* codes;
  const uint8_t* scales;
  int head_dim;

  HeadRows(const KvStream& stream, uint32_t page, int head)
      : codes(reinterpret_cast<const E4M3*>(stream.Head(page, head))),
        scales(reinterpret_cast<const uint8_t*>(stream.Scales(page, head))),
        head_dim(stream.head_dim) {}
  CodedRow At(int64_t index) const { return {codes + index * head_dim, ScaleOf(scales[index])}; }
};

// run<Row>() with the rows of a dtype.
template <class Run>
inline auto WithRows(DType dtype, const Run& run) {
  if (dtype == DType::kE4M3) return run.template operator()<CodedRow>();
  if (dtype == DType::kBf16) return run.template operator()<const Bf16*>();
  return run.template operator()<const float*>();
}

template <class Elem>
void NarrowRow(const float* from, int size, Elem* to) {
  int c = 0;
  for (; c + kLanes <= size; c += kLanes) Store(to + c, Load(from + c));
  if (c < size) Store(to + c, Load(from + c, size - c), size - c);
}

// Puts down entry `index` of a page.
inline void WriteRow(const float* from, const KvStream& stream, uint32_t page, int head,
                     int64_t index) {
  std::byte* elements = stream.Head(page, head);
  const int size = stream.head_dim;
  const int64_t first = index * size;
  if (stream.dtype == DType::kE4M3) {
    const uint8_t scale = EncodeRow(from, size, reinterpret_cast<E4M3*>(elements) + first);
    stream.Scales(page, head)[index] = std::byte{scale};
  } else if (stream.dtype == DType::kBf16) {
    NarrowRow(from, size, reinterpret_cast<Bf16*>(elements) + first);
  } else {
    NarrowRow(from, size, reinterpret_cast<float*>(elements) + first);
  }
}

}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_KV_ROWS_H_
