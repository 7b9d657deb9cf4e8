#include "kernels/kv_write/kv_write_kernel.h"

#include "kernels/kv_rows.h"

namespace troupe::TROUPE_ISA {
namespace {

void Write(const Tensor& from, int64_t token, const KvStream& stream, const uint32_t* pages,
           int64_t position) {
  const uint32_t page = pages[position / stream.entries_per_page];
  for (int head = 0; head < stream.kv_heads; ++head) {
    WriteRow(from.f32(token) + int64_t{head} * stream.head_dim, stream, page, head,
             position % stream.entries_per_page);
  }
}

}  // namespace

void KvWriteTokens(const KvWriteParams& params, int64_t begin, int64_t end) {
  const BatchView& batch = params.batch;
  for (int64_t token = begin; token < end; ++token) {
    const uint32_t* pages =
        params.tables.pages + batch.slot[batch.token_row[token]] * params.tables.stride;
    Write(params.k, token, params.k_stream, pages, batch.position[token]);
    Write(params.v, token, params.v_stream, pages, batch.position[token]);
  }
}

}  // namespace troupe::TROUPE_ISA
