#include "worker/weight_digests.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <map>
#include <thread>
#include <tuple>

namespace troupe {
namespace {

// Of one patch, by one thread at a time.
constexpr int64_t kRowsAtOnce = 256;

// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), the finaliser.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t ColumnFactor(int64_t column) { return Mix(static_cast<uint64_t>(column)) | 1; }
uint64_t RowFactor(int tensor, int64_t row) {
  return Mix(Mix(static_cast<uint64_t>(tensor) + 1) ^ static_cast<uint64_t>(row)) | 1;
}

// Neighbouring rows of a patch.
struct Rows {
  size_t patch = 0;
  int64_t begin = 0;
  int64_t end = 0;
  uint64_t digest = 0;
};

uint64_t DigestOf(const WeightPatch& patch, const Rows& rows,
                  const std::vector<uint64_t>& column_factors, std::vector<float>& row) {
  const int64_t cols = patch.view.cols;
  row.resize(cols);
  const uint64_t* factors = column_factors.data() + patch.first_col;
  uint64_t digest = 0;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    patch.view.ReadRows(r, 1, absl::MakeSpan(row));
    uint64_t sum = 0;
    // With halves swapped, since the lower one of what was bf16 is zero.
    for (int64_t c = 0; c < cols; ++c) {
      sum += std::rotl(std::bit_cast<uint32_t>(row[c]), 16) * factors[c];
    }
    digest += sum * RowFactor(patch.tensor, patch.first_row + r);
  }
  return digest;
}

std::vector<Rows> Cut(absl::Span<const WeightPatch> patches) {
  std::vector<Rows> all;
  for (size_t p = 0; p < patches.size(); ++p) {
    const int64_t rows = patches[p].view.rows;
    for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
      all.push_back({.patch = p, .begin = begin, .end = std::min(begin + kRowsAtOnce, rows)});
    }
  }
  return all;
}

}  // namespace

std::vector<WeightPiece> DigestPatches(absl::Span<const WeightPatch> patches, int threads) {
  int64_t columns = 0;
  for (const WeightPatch& patch : patches) {
    columns = std::max(columns, patch.first_col + patch.view.cols);
  }
  std::vector<uint64_t> factors(columns);
  for (int64_t c = 0; c < columns; ++c) factors[c] = ColumnFactor(c);
  std::vector<Rows> cut = Cut(patches);
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    std::vector<float> row;
    for (size_t i = next++; i < cut.size(); i = next++) {
      cut[i].digest = DigestOf(patches[cut[i].patch], cut[i], factors, row);
    }
  };
  std::vector<std::thread> others;
  const auto useful = static_cast<int>(std::min<size_t>(cut.size(), std::max(threads, 1)));
  for (int t = 1; t < useful; ++t) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();

  std::vector<WeightPiece> pieces;
  std::map<std::tuple<WeightRole, int, int, WeightExtent>, size_t> index;
  for (const Rows& rows : cut) {
    const WeightPatch& patch = patches[rows.patch];
    const WeightPart& part = patch.part;
    const auto key = std::tuple(part.role, part.layer, part.expert, patch.extent);
    const auto [it, fresh] = index.try_emplace(key, pieces.size());
    if (fresh) pieces.push_back({part.role, part.layer, part.expert, patch.extent, 0});
    pieces[it->second].digest += rows.digest;
  }
  return pieces;
}

std::vector<WeightPiece> DigestWeights(const ModelDescription& model, const ModelWeights& weights,
                                       const RankShard& shard, int threads) {
  const SlicedWeights sliced = SliceWeights(model, weights, shard);
  return DigestPatches(WalkWeights(shard, sliced.weights, weights), threads);
}

}  // namespace troupe
