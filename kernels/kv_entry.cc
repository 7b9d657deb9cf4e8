#include "kernels/kv_entry.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/element.h"
#include "kernels/linear/coded_matrix.h"

namespace troupe {
namespace {

// Of kernels/e4m3.h, as its formula is written there.
constexpr float kMostCode = 448;
constexpr int kLeastPower = -112;
constexpr int kMostPower = 7;
constexpr int kPowerBias = 127;
constexpr uint8_t kNotANumber = 0xff;

uint8_t* Scale(const KvStream& stream, uint32_t page, int head, int64_t index) {
  return reinterpret_cast<uint8_t*>(stream.Scales(page, head)) + index;
}

void StoreCodes(const float* values, int size, uint8_t* codes, uint8_t* scale) {
  float largest = 0;
  for (int c = 0; c < size; ++c) {
    if (!std::isfinite(values[c])) {
      std::fill_n(codes, size, 0);
      *scale = kNotANumber;
      return;
    }
    largest = std::max(largest, std::fabs(values[c]));
  }
  int power = kLeastPower;
  while (power < kMostPower && std::ldexp(double{largest}, -power) > kMostCode) ++power;
  for (int c = 0; c < size; ++c) codes[c] = ToE4M3(std::ldexp(values[c], -power));
  *scale = static_cast<uint8_t>(power + kPowerBias);
}

}  // namespace

std::vector<float> LoadKvEntry(const KvStream& stream, uint32_t page, int head, int64_t index) {
  std::vector<float> values(stream.head_dim);
  const std::byte* elements = stream.Head(page, head);
  for (int c = 0; c < stream.head_dim; ++c) {
    const int64_t at = index * stream.head_dim + c;
    if (stream.dtype != DType::kE4M3) {
      values[c] = LoadElement(elements, stream.dtype, at);
      continue;
    }
    const uint8_t scale = *Scale(stream, page, head, index);
    const float code = FromE4M3(reinterpret_cast<const uint8_t*>(elements)[at]);
    values[c] = scale == kNotANumber ? std::numeric_limits<float>::quiet_NaN()
                                     : std::ldexp(code, scale - kPowerBias);
  }
  return values;
}

void StoreKvEntry(const KvStream& stream, uint32_t page, int head, int64_t index,
                  const float* values) {
  std::byte* elements = stream.Head(page, head);
  const int64_t first = index * stream.head_dim;
  if (stream.dtype == DType::kE4M3) {
    StoreCodes(values, stream.head_dim, reinterpret_cast<uint8_t*>(elements) + first,
               Scale(stream, page, head, index));
    return;
  }
  for (int c = 0; c < stream.head_dim; ++c) {
    StoreElement(elements, stream.dtype, first + c, values[c]);
  }
}

}  // namespace troupe
