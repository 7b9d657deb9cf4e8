#include "kernels/kv_write/kv_write_reference.h"

#include "base/check.h"
#include "kernels/kv_entry.h"

namespace troupe {
namespace {

void WriteToken(const KvWriteParams& params, const Tensor& from, const KvStream& stream,
                int64_t token) {
  const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
  const int64_t entry = params.batch.position[token];
  const uint32_t page =
      params.tables.pages[slot * params.tables.stride + entry / stream.entries_per_page];
  for (int head = 0; head < stream.kv_heads; ++head) {
    StoreKvEntry(stream, page, head, entry % stream.entries_per_page,
                 from.f32(token) + int64_t{head} * stream.head_dim);
  }
}

}  // namespace

void KvWriteReference(const KvWriteParams& params) {
  CHECK_EQ(params.k.cols,
           static_cast<int64_t>(params.k_stream.kv_heads) * params.k_stream.head_dim);
  CHECK_EQ(params.v.cols,
           static_cast<int64_t>(params.v_stream.kv_heads) * params.v_stream.head_dim);
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    WriteToken(params, params.k, params.k_stream, token);
    WriteToken(params, params.v, params.v_stream, token);
  }
}

}  // namespace troupe
