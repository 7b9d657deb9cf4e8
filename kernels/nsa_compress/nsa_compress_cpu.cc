#include "kernels/nsa_compress/nsa_compress_cpu.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/nsa_compress/nsa_compress_kernel.h"

namespace troupe {
namespace {

// Entries whose last token is in the step.
std::vector<NsaEntry> FinishedEntries(const BatchView& batch, const NsaSizes& sizes) {
  std::vector<NsaEntry> entries;
  const int64_t stride = sizes.compress_stride;
  const int64_t first_entry = sizes.compress_block / stride - 1;
  for (int row = 0; row < batch.rows; ++row) {
    const int64_t end = batch.start[row] + batch.first[row + 1] - batch.first[row];
    for (int64_t entry = std::max(first_entry, batch.start[row] / stride);
         (entry + 1) * stride <= end; ++entry) {
      entries.push_back({row, entry});
    }
  }
  return entries;
}

}  // namespace

void NsaCompressCpu(const NsaCompressParams& params, const CpuContext& context) {
  const NsaSizes& sizes = params.sizes;
  const int size = params.k.head_dim;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  CHECK_EQ(size % 16, 0) << "head size";
  CHECK_EQ(params.raw_k.head_dim, size);
  CHECK_EQ(params.raw_v.head_dim, size);
  CHECK_EQ(params.v.head_dim, size);
  CHECK_EQ(params.raw_k.kv_heads, params.k.kv_heads);
  const std::vector<NsaEntry> entries = FinishedEntries(params.batch, sizes);
  if (entries.empty()) return;

  const auto take_phi = [&] {
    return NsaTransposedPhi{context.scratch.Take<float>(int64_t{size} * size),
                            context.scratch.Take<float>(int64_t{size} * size)};
  };
  const NsaTransposedPhi phi_k = take_phi();
  const NsaTransposedPhi phi_v = take_phi();
  kNsaTransposePhi[context.isa](params.phi_k, size, phi_k);
  kNsaTransposePhi[context.isa](params.phi_v, size, phi_v);

  const int64_t stride = NsaCompressScratchFloats(sizes.compress_block, size);
  float* scratch = context.scratch.Take<float>(context.pool.threads() * stride);
  // Keys of all entries and heads, then values: neighbours share their weights and raw tokens.
  const int64_t count = static_cast<int64_t>(entries.size());
  const int64_t per_kind = count * params.k.kv_heads;
  context.pool.ParallelFor(2 * per_kind, 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      const bool is_key = i < per_kind;
      const int kv_head = static_cast<int>(i % per_kind / count);
      kNsaCompressEntry[context.isa](params, entries[i % count], kv_head, is_key,
                                     is_key ? phi_k : phi_v, scratch + range.worker * stride);
    }
  });
}

}  // namespace troupe
