#include "model/matrix_view.h"

#include <bit>
#include <cstring>

#include "base/check.h"
#include "kernels/linear/coded_matrix.h"

namespace troupe {
namespace {

float FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

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

void ReadRow(const PlainStorage& plain, int64_t row, int64_t first_col, absl::Span<float> out) {
  const int64_t first = plain.offset + row * plain.row_stride + first_col * plain.col_stride;
  ReadElements(plain.tensor, first, plain.col_stride, out);
}

const TensorView& MainTensor(const PlainStorage& storage) { return storage.tensor; }
const TensorView& MainTensor(const GroupedStorage& storage) { return storage.codes.tensor; }
const TensorView& MainTensor(const Fp8Storage& storage) { return storage.codes; }
const TensorView& MainTensor(const Mxfp4Storage& storage) { return storage.blocks; }

int64_t Bytes(const TensorView& tensor) { return static_cast<int64_t>(tensor.bytes.size()); }

int64_t StoredBytes(const PlainStorage& storage, const MatrixView& matrix) {
  return matrix.elements() * BitsPerElement(storage.tensor.dtype) / 8;
}
// The matrix's share of the bytes of one of `whole` elements.
int64_t Share(int64_t bytes, const MatrixView& matrix, int64_t whole) {
  return static_cast<int64_t>(static_cast<double>(bytes) * static_cast<double>(matrix.elements()) /
                              static_cast<double>(whole));
}
int64_t StoredBytes(const GroupedStorage& storage, const MatrixView& matrix) {
  const int64_t codes = Bytes(storage.codes.tensor);
  return Share(
      codes + Bytes(storage.zeros.tensor) + Bytes(storage.scales) + Bytes(storage.group_of), matrix,
      codes * 8 / storage.codes.bits);
}
int64_t StoredBytes(const Fp8Storage& storage, const MatrixView& matrix) {
  return Share(Bytes(storage.codes) + Bytes(storage.scales), matrix, Bytes(storage.codes));
}
int64_t StoredBytes(const Mxfp4Storage& /*storage*/, const MatrixView& matrix) {
  return matrix.elements() / 2 + matrix.elements() / Mxfp4Storage::kGroup;
}

}  // namespace

MatrixView MatrixView::Of(const TensorView& tensor) {
  CHECK_EQ(tensor.shape.size(), 2U) << tensor.name;
  return {.rows = tensor.shape[0],
          .cols = tensor.shape[1],
          .storage = PlainStorage{.tensor = tensor, .row_stride = tensor.shape[1]}};
}

MatrixView MatrixView::RowsFrom(int64_t first, int64_t count) const {
  CHECK(first >= 0 && count >= 0 && first + count <= rows) << name();
  MatrixView part = *this;
  part.rows = count;
  if (auto* plain = std::get_if<PlainStorage>(&part.storage)) {
    plain->offset += first * plain->row_stride;
  } else {
    part.first_row += first;
  }
  return part;
}

MatrixView MatrixView::ColumnsFrom(int64_t first, int64_t count) const {
  CHECK(first >= 0 && count >= 0 && first + count <= cols) << name();
  MatrixView part = *this;
  part.cols = count;
  if (auto* plain = std::get_if<PlainStorage>(&part.storage)) {
    plain->offset += first * plain->col_stride;
  } else {
    part.first_col += first;
  }
  return part;
}

absl::string_view MatrixView::name() const {
  return std::visit([](const auto& kind) { return MainTensor(kind).name; }, storage);
}

StoredDType MatrixView::value_dtype() const {
  const auto* plain = std::get_if<PlainStorage>(&storage);
  return plain != nullptr ? plain->tensor.dtype : StoredDType::kF32;
}

int64_t MatrixView::stored_bytes() const {
  return std::visit([this](const auto& kind) { return StoredBytes(kind, *this); }, storage);
}

const std::byte* MatrixView::Contiguous() const {
  const auto* plain = std::get_if<PlainStorage>(&storage);
  if (plain == nullptr || plain->col_stride != 1 || plain->row_stride != cols) return nullptr;
  return plain->tensor.bytes.data() + plain->offset * BitsPerElement(plain->tensor.dtype) / 8;
}

void MatrixView::ReadRows(int64_t first, int64_t count, absl::Span<float> out) const {
  CHECK_EQ(static_cast<int64_t>(out.size()), count * cols);
  for (int64_t r = 0; r < count; ++r) {
    const absl::Span<float> to = out.subspan(r * cols, cols);
    std::visit([&](const auto& kind) { ReadRow(kind, first_row + first + r, first_col, to); },
               storage);
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
