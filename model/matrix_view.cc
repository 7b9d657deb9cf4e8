#include "model/matrix_view.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace troupe {
namespace {

float FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float FromF16(uint16_t bits) {
  // Moves exponent and mantissa to f32's places; the product puts the exponent's bias right, and
  // makes subnormal numbers normal.
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7FFF) << 13;
  const float value = std::bit_cast<float>(magnitude) * 0x1p112F;
  const bool special = (bits & 0x7C00) == 0x7C00;  // infinity or NaN
  const uint32_t shown = special ? magnitude | 0x7F800000U : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(shown | static_cast<uint32_t>(bits & 0x8000) << 16);
}

// `count` elements that lie `stride` elements apart.
void ReadElements(const TensorView& tensor, int64_t first, int64_t stride, absl::Span<float> out) {
  const auto* data = tensor.bytes.data();
  const auto read = [&](auto bits, const auto& decode) {
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t element = first + static_cast<int64_t>(i) * stride;
      std::memcpy(&bits, data + element * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
      out[i] = decode(bits);
    }
  };
  switch (tensor.dtype) {
    case StoredDType::kF32:
      return read(float{}, [](float value) { return value; });
    case StoredDType::kBF16:
      return read(uint16_t{}, FromBf16);
    case StoredDType::kF16:
      return read(uint16_t{}, FromF16);
    default:
      CHECK(false) << tensor.name << " holds " << DTypeName(tensor.dtype) << ", not plain values";
  }
}

}  // namespace

MatrixView MatrixView::Of(const TensorView& tensor) {
  CHECK_EQ(tensor.shape.size(), 2U) << tensor.name;
  return {.rows = tensor.shape[0],
          .cols = tensor.shape[1],
          .storage = PlainStorage{.tensor = tensor, .row_stride = tensor.shape[1]}};
}

absl::string_view MatrixView::name() const { return std::get<PlainStorage>(storage).tensor.name; }

StoredDType MatrixView::value_dtype() const { return std::get<PlainStorage>(storage).tensor.dtype; }

int64_t MatrixView::stored_bytes() const { return elements() * BitsPerElement(value_dtype()) / 8; }

const std::byte* MatrixView::Contiguous() const {
  const auto& plain = std::get<PlainStorage>(storage);
  if (plain.col_stride != 1 || plain.row_stride != cols) return nullptr;
  return plain.tensor.bytes.data() + plain.offset * BitsPerElement(plain.tensor.dtype) / 8;
}

void MatrixView::ReadRows(int64_t first, int64_t count, absl::Span<float> out) const {
  CHECK_EQ(static_cast<int64_t>(out.size()), count * cols);
  const auto& plain = std::get<PlainStorage>(storage);
  for (int64_t r = 0; r < count; ++r) {
    ReadElements(plain.tensor, plain.offset + (first + r) * plain.row_stride, plain.col_stride,
                 out.subspan(r * cols, cols));
  }
}

std::vector<float> ReadAsF32(const TensorView& view) {
  std::vector<float> values(view.elements());
  ReadElements(view, 0, 1, absl::MakeSpan(values));
  return values;
}

std::vector<float> ReadAsF32(const MatrixView& view) {
  std::vector<float> values(view.elements());
  view.ReadRows(0, view.rows, absl::MakeSpan(values));
  return values;
}

}  // namespace troupe
