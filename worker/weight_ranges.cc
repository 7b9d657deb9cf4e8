#include "worker/weight_ranges.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"

namespace troupe {
namespace {

using Bytes = std::span<const std::byte>;

// Stretches of a tensor, relative to its first byte.
struct Stretches {
  const TensorView* tensor = nullptr;
  int64_t begin = 0;
  int64_t bytes = 0;
  int64_t stride = 0;
  int64_t count = 1;
};

Stretches Whole(const TensorView& tensor) {
  return {.tensor = &tensor, .bytes = static_cast<int64_t>(tensor.bytes.size())};
}

// Rows [first, first + count) of `row_bytes` each.
Stretches RowsOf(const TensorView& tensor, int64_t first, int64_t count, int64_t row_bytes) {
  return {.tensor = &tensor, .begin = first * row_bytes, .bytes = count * row_bytes};
}

std::vector<Stretches> StretchesOf(const PlainStorage& plain, const MatrixView& matrix) {
  const int64_t element = BitsPerElement(plain.tensor.dtype) / 8;
  int64_t length = matrix.cols;
  int64_t count = matrix.rows;
  int64_t stride = plain.row_stride;
  if (plain.col_stride != 1) {
    // Transposed: columns are what lies together. Anything else is taken with what is between.
    std::swap(length, count);
    stride = plain.col_stride;
    if (plain.row_stride != 1) {
      length = (matrix.rows - 1) * plain.row_stride + (matrix.cols - 1) * plain.col_stride + 1;
      count = 1;
    }
  }
  if (stride == length || count == 1) {
    length *= count;
    count = 1;
  }
  return {{.tensor = &plain.tensor,
           .begin = plain.offset * element,
           .bytes = length * element,
           .stride = count == 1 ? 0 : stride * element,
           .count = count}};
}

// Codes of a slice lie between those of others, in as many ways as there are formats.
std::vector<Stretches> StretchesOf(const GroupedStorage& grouped, const MatrixView& /*matrix*/) {
  std::vector<Stretches> all = {Whole(grouped.codes.tensor), Whole(grouped.scales)};
  if (!grouped.zeros.empty()) all.push_back(Whole(grouped.zeros.tensor));
  if (!grouped.group_of.empty()) all.push_back(Whole(grouped.group_of));
  return all;
}

std::vector<Stretches> StretchesOf(const Fp8Storage& fp8, const MatrixView& matrix) {
  return {RowsOf(fp8.codes, matrix.first_row, matrix.rows, fp8.codes.shape[1]), Whole(fp8.scales)};
}

// The experts of a layer are one tensor.
std::vector<Stretches> StretchesOf(const Mxfp4Storage& mxfp4, const MatrixView& matrix) {
  const int64_t first = mxfp4.first_row + matrix.first_row * mxfp4.row_step;
  const int64_t count = (matrix.rows - 1) * mxfp4.row_step + 1;
  return {RowsOf(mxfp4.blocks, first, count, mxfp4.cols() / 2),
          RowsOf(mxfp4.scales, first, count, mxfp4.cols() / Mxfp4Storage::kGroup)};
}

}  // namespace

FileIndex::FileIndex(const SafetensorsCheckpoint& files) {
  for (const auto& file : files.files()) files_.push_back(file->bytes());
}

absl::StatusOr<FileRange> FileIndex::Of(Bytes bytes, absl::string_view name) const {
  for (int f = 0; f < size(); ++f) {
    const Bytes file = files_[f];
    if (bytes.data() < file.data() || bytes.data() >= file.data() + file.size()) continue;
    return FileRange{.file = f,
                     .begin = bytes.data() - file.data(),
                     .bytes = static_cast<int64_t>(bytes.size())};
  }
  return absl::FailedPreconditionError(absl::StrCat(
      name, ": found unaligned in its file, wanted aligned to be read from elsewhere"));
}

absl::StatusOr<std::vector<FileRange>> FileIndex::Of(const MatrixView& matrix) const {
  const std::vector<Stretches> stretches =
      std::visit([&](const auto& storage) { return StretchesOf(storage, matrix); }, matrix.storage);
  std::vector<FileRange> ranges;
  for (const Stretches& s : stretches) {
    TROUPE_ASSIGN_OR_RETURN(FileRange range, Of(s.tensor->bytes, s.tensor->name));
    range.begin += s.begin;
    range.bytes = s.bytes;
    range.stride = s.stride;
    range.count = s.count;
    ranges.push_back(range);
  }
  return ranges;
}

}  // namespace troupe
