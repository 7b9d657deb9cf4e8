#include "kernels/nsa_compress/nsa_compress_reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/kv_entry.h"
#include "kernels/reference_attention.h"

namespace troupe {
namespace {

using Rows = std::vector<std::vector<double>>;

std::vector<double> Times(const float* w, const std::vector<double>& x) {
  std::vector<double> out(x.size(), 0.0);
  for (size_t row = 0; row < x.size(); ++row) {
    for (size_t col = 0; col < x.size(); ++col) out[row] += w[row * x.size() + col] * x[col];
  }
  return out;
}

// c of the header's formula.
std::vector<double> Compress(const Rows& z, const NsaPhi& phi) {
  const size_t size = z.front().size();
  Rows logits;
  for (size_t m = 0; m < z.size(); ++m) {
    std::vector<double> u(size);
    for (size_t c = 0; c < size; ++c) u[c] = z[m][c] + phi.position[m * size + c];
    u = Times(phi.w1, u);
    for (double& value : u) value /= 1 + std::exp(-value);
    logits.push_back(Times(phi.w2, u));
  }
  std::vector<double> compressed(size);
  for (size_t c = 0; c < size; ++c) {
    double largest = logits[0][c];
    for (const std::vector<double>& logit : logits) largest = std::max(largest, logit[c]);
    double sum = 0;
    double weighted = 0;
    for (size_t m = 0; m < z.size(); ++m) {
      const double weight = std::exp(logits[m][c] - largest);
      sum += weight;
      weighted += weight * z[m][c];
    }
    compressed[c] = weighted / sum;
  }
  return compressed;
}

void Normalise(std::vector<double>& x, const float* weight, double eps) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  for (size_t c = 0; c < x.size(); ++c) x[c] *= scale * weight[c];
}

void StoreEntry(const std::vector<double>& values, const KvStream& stream,
                const BlockTables& tables, uint32_t slot, int64_t entry, int head) {
  const uint32_t page = tables.pages[slot * tables.stride + entry / stream.entries_per_page];
  const std::vector<float> rounded(values.begin(), values.end());
  StoreKvEntry(stream, page, head, entry % stream.entries_per_page, rounded.data());
}

Rows LoadBlock(const KvStream& raw, const BlockTables& tables, uint32_t slot, int64_t first,
               int count, int head) {
  Rows rows;
  for (int m = 0; m < count; ++m) rows.push_back(LoadEntry(raw, tables, slot, first + m, head));
  return rows;
}

}  // namespace

void NsaCompressReference(const NsaCompressParams& params) {
  const NsaSizes& sizes = params.sizes;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    const int64_t last = params.batch.position[token];
    const int64_t first = last + 1 - sizes.compress_block;
    if (first < 0 || first % sizes.compress_stride != 0) continue;
    const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
    const int64_t entry = last / sizes.compress_stride;
    for (int head = 0; head < params.k.kv_heads; ++head) {
      std::vector<double> key = Compress(
          LoadBlock(params.raw_k, params.raw_tables, slot, first, sizes.compress_block, head),
          params.phi_k);
      Normalise(key, params.k_norm, params.eps);
      StoreEntry(key, params.k, params.tables, slot, entry, head);
      const std::vector<double> value = Compress(
          LoadBlock(params.raw_v, params.raw_tables, slot, first, sizes.compress_block, head),
          params.phi_v);
      StoreEntry(value, params.v, params.tables, slot, entry, head);
    }
  }
}

}  // namespace troupe
