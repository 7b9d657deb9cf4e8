#include "kernels/attention_bench_util.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "base/check.h"
#include "kernels/element.h"

namespace troupe {

BenchBatch::BenchBatch(int rows, int start, int count) {
  slot_.resize(rows);
  std::iota(slot_.begin(), slot_.end(), 0);
  start_.resize(rows);
  position_.resize(int64_t{rows} * count);
  for (int row = 0; row < rows; ++row) {
    first_.push_back(row * count);
    token_row_.insert(token_row_.end(), count, row);
  }
  first_.push_back(rows * count);
  view_ = {.rows = rows,
           .tokens = rows * count,
           .slot = slot_.data(),
           .start = start_.data(),
           .first = first_.data(),
           .position = position_.data(),
           .token_row = token_row_.data()};
  MoveTo(start);
}

void BenchBatch::MoveTo(int start) {
  for (int row = 0; row < view_.rows; ++row) start_[row] = std::max(0, start - row % 16);
  for (int token = 0; token < view_.tokens; ++token) {
    position_[token] = start_[token_row_[token]] + token - first_[token_row_[token]];
  }
}

BenchPages::BenchPages(Ops& ops, int rows, int64_t tokens, const Shape& shape) {
  stride_ = tokens / kBlockTokens + 1;
  const int64_t stream_bytes =
      int64_t{shape.kv_heads} * shape.entries_per_page * shape.head_dim * BytesOf(shape.dtype);
  const int64_t page_bytes = 2 * stream_bytes;
  const int64_t pages = rows * stride_;
  absl::StatusOr<Buffer> memory = ops.Allocate(pages * page_bytes);
  CHECK_OK(memory);
  memory_ = *memory;
  // One random page, copied: what is read does not matter, as long as it is finite.
  const std::vector<float> values = BenchVector(page_bytes / BytesOf(shape.dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    StoreElement(memory_.get(), shape.dtype, static_cast<int64_t>(i), values[i]);
  }
  for (int64_t page = 1; page < pages; ++page) {
    std::memcpy(memory_.get() + page * page_bytes, memory_.get(), page_bytes);
  }
  tables_.resize(pages);
  std::iota(tables_.begin(), tables_.end(), 0);
  std::shuffle(tables_.begin(), tables_.end(), std::minstd_rand(1));
  k_ = {.base = memory_.get(),
        .page_bytes = page_bytes,
        .entries_per_page = shape.entries_per_page,
        .kv_heads = shape.kv_heads,
        .head_dim = shape.head_dim,
        .dtype = shape.dtype};
  v_ = k_;
  v_.base += stream_bytes;
  entry_bytes_ = page_bytes / shape.entries_per_page;
}

std::vector<float> BenchVector(int64_t count) {
  std::minstd_rand engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(engine);
  return values;
}

}  // namespace troupe
