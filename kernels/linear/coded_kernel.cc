#include "kernels/linear/coded_kernel.h"

#include "kernels/linear/panel_scales.h"
#include "kernels/linear/panel_tile.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

// Numbers of at most 8 bits, as bf16. -8 to 7, E2M1, and E4M3's subnormal numbers.
constexpr Bf16 kInt4Numbers[16] = {{0xc100}, {0xc0e0}, {0xc0c0}, {0xc0a0}, {0xc080}, {0xc040},
                                   {0xc000}, {0xbf80}, {0x0000}, {0x3f80}, {0x4000}, {0x4040},
                                   {0x4080}, {0x40a0}, {0x40c0}, {0x40e0}};
constexpr Bf16 kE2M1Numbers[16] = {{0x0000}, {0x3f00}, {0x3f80}, {0x3fc0}, {0x4000}, {0x4040},
                                   {0x4080}, {0x40c0}, {0x8000}, {0xbf00}, {0xbf80}, {0xbfc0},
                                   {0xc000}, {0xc040}, {0xc080}, {0xc0c0}};
constexpr Bf16 kE4M3Subnormal[16] = {{0x0000}, {0x3b00}, {0x3b80}, {0x3bc0}, {0x3c00}, {0x3c20},
                                     {0x3c40}, {0x3c60}, {0},      {0},      {0},      {0},
                                     {0},      {0},      {0},      {0}};

// How the words of one step become numbers and products with packed x.
class NibbleCodes {
 public:
  static constexpr int kInputs = 8;

  explicit NibbleCodes(CodeFormat format)
      : table_(LoadLut16(format == CodeFormat::kInt4 ? kInt4Numbers : kE2M1Numbers)) {}

  template <class X, int kRows, int kVecs>
  void Multiply(const CodeVec (&codes)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) const {
    MultiplyPair<0>(codes, x, acc);
    MultiplyPair<1>(codes, x, acc);
    MultiplyPair<2>(codes, x, acc);
    MultiplyPair<3>(codes, x, acc);
  }

 private:
  template <int kPair, class X, int kRows, int kVecs>
  void MultiplyPair(const CodeVec (&codes)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) const {
    PairVec numbers[kVecs];
    for (int j = 0; j < kVecs; ++j) numbers[j] = LookUp<4 * kPair>(table_, codes[j]);
    MultiplyPairs(numbers, x + 2 * kPair * kRows, acc);
  }

  Lut16 table_;
};

class E4M3Codes {
 public:
  static constexpr int kInputs = 4;

  explicit E4M3Codes(CodeFormat /*format*/) : subnormal_(LoadLut16(kE4M3Subnormal)) {}

  template <class X, int kRows, int kVecs>
  void Multiply(const CodeVec (&codes)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) const {
    PairVec numbers[kVecs];
    for (int j = 0; j < kVecs; ++j) numbers[j] = WidenE4M3<0>(subnormal_, codes[j]);
    MultiplyPairs(numbers, x, acc);
    for (int j = 0; j < kVecs; ++j) numbers[j] = WidenE4M3<1>(subnormal_, codes[j]);
    MultiplyPairs(numbers, x + 2 * kRows, acc);
  }

 private:
  Lut16 subnormal_;
};

class ByteCodes {
 public:
  static constexpr int kInputs = 4;

  explicit ByteCodes(CodeFormat /*format*/) {}

  template <int kRows, int kVecs>
  void Multiply(const CodeVec (&codes)[kVecs], const float* x, Vec (&acc)[kRows][kVecs]) const {
    MultiplyOne<0>(codes, x, acc);
    MultiplyOne<1>(codes, x, acc);
    MultiplyOne<2>(codes, x, acc);
    MultiplyOne<3>(codes, x, acc);
  }

  template <int kRows, int kVecs>
  void Multiply(const CodeVec (&codes)[kVecs], const Bf16* x, Vec (&acc)[kRows][kVecs]) const {
    PairVec numbers[kVecs];
    for (int j = 0; j < kVecs; ++j) {
      numbers[j] = PairOf(SignedByte<0>(codes[j]), SignedByte<1>(codes[j]));
    }
    MultiplyPairs(numbers, x, acc);
    for (int j = 0; j < kVecs; ++j) {
      numbers[j] = PairOf(SignedByte<2>(codes[j]), SignedByte<3>(codes[j]));
    }
    MultiplyPairs(numbers, x + 2 * kRows, acc);
  }

 private:
  template <int kInput, int kRows, int kVecs>
  static void MultiplyOne(const CodeVec (&codes)[kVecs], const float* x, Vec (&acc)[kRows][kVecs]) {
    Vec numbers[kVecs];
    for (int j = 0; j < kVecs; ++j) numbers[j] = SignedByte<kInput>(codes[j]);
    MultiplyByRows(numbers, x + kInput * kRows, acc);
  }
};

template <class Codes, class PackedX>
class CodedKind {
 public:
  using X = PackedX;

  CodedKind(const PanelView& w, const RowsView& rows)
      : codes_(w.codes.format),
        view_(w.codes),
        steps_(PaddedInputs(w) / Codes::kInputs),
        group_steps_((w.codes.group + Codes::kInputs - 1) / Codes::kInputs),
        scale_vec_bytes_(ScaleVecBytes(w.codes.scale_format)),
        sums_(w.codes.zeros ? GroupSums(w, rows) : nullptr) {}

  int64_t panel_bytes() const { return view_.panel_bytes; }

  template <int kRows, int kVecs>
  void Accumulate(const std::byte* w, const X* x, int64_t first_row,
                  Vec (&acc)[kRows][kVecs]) const {
    for (int64_t group = 0; group < view_.groups; ++group, w += view_.group_bytes) {
      const int64_t steps = Min(group_steps_, steps_ - group * group_steps_);
      Vec part[kRows][kVecs];
      Clear(part);
      const std::byte* at = w;
      for (int64_t step = 0; step < steps; ++step) {
        CodeVec codes[kVecs];
        for (int j = 0; j < kVecs; ++j) {
          codes[j] = LoadCodes(at + PanelOffset(j) + j % kPanelVecs * (kLanes * 4));
        }
        codes_.Multiply(codes, x, part);
        at += kPanelOutputs * 4;
        x += kRows * Codes::kInputs;
      }
      if (sums_ != nullptr) SubtractZeros(at, first_row, group, part);
      for (int j = 0; j < kVecs; ++j) {
        const Vec scale =
            LoadScales(at + PanelOffset(j) + j % kPanelVecs * scale_vec_bytes_, view_.scale_format);
        for (int r = 0; r < kRows; ++r) acc[r][j] = Fma(scale, part[r][j], acc[r][j]);
      }
    }
  }

 private:
  int64_t PanelOffset(int vec) const { return vec / kPanelVecs * view_.panel_bytes; }

  // `scales` points behind the codes of a group.
  template <int kRows, int kVecs>
  void SubtractZeros(const std::byte* scales, int64_t first_row, int64_t group,
                     Vec (&part)[kRows][kVecs]) const {
    const std::byte* zeros = scales + kPanelVecs * scale_vec_bytes_;
    for (int j = 0; j < kVecs; ++j) {
      const Vec zero = Zero() - LoadSignedBytes(zeros + PanelOffset(j) + j % kPanelVecs * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const Vec sum = Set1(sums_[(first_row + r) * view_.groups + group]);
        part[r][j] = Fma(zero, sum, part[r][j]);
      }
    }
  }

  Codes codes_;
  const PanelCodes& view_;
  int64_t steps_;
  int64_t group_steps_;
  int64_t scale_vec_bytes_;
  const float* sums_;
};

struct F16Weights {
  using W = uint16_t;
  using X = float;
  static constexpr int kInputs = 1;

  template <int kRows, int kVecs>
  static void Multiply(const W* const (&w)[kVecs], const X* x, Vec (&acc)[kRows][kVecs]) {
    Vec weights[kVecs];
    for (int j = 0; j < kVecs; ++j) weights[j] = LoadF16(w[j]);
    MultiplyByRows(weights, x, acc);
  }
};

template <class Codes>
void MultiplyCodes(const PanelView& w, bool dots, const RowsView& rows, const RowsOut& out,
                   const PanelRange& range) {
  if constexpr (kNativeDotPairs) {
    if (dots) return Multiply(CodedKind<Codes, Bf16>(w, rows), w, rows, out, range);
  }
  Multiply(CodedKind<Codes, float>(w, rows), w, rows, out, range);
}

}  // namespace

void MultiplyCodedPanels(const PanelView& w, bool dots, const RowsView& rows, const RowsOut& out,
                         const PanelRange& range) {
  switch (w.codes.format) {
    case CodeFormat::kF16:
      return Multiply(PlainKind<F16Weights>(w.inputs), w, rows, out, range);
    case CodeFormat::kFp8E4M3:
      return MultiplyCodes<E4M3Codes>(w, dots, rows, out, range);
    case CodeFormat::kInt8:
      return MultiplyCodes<ByteCodes>(w, dots, rows, out, range);
    case CodeFormat::kInt4:
    case CodeFormat::kFp4E2M1:
      return MultiplyCodes<NibbleCodes>(w, dots, rows, out, range);
  }
}

}  // namespace troupe::TROUPE_ISA
