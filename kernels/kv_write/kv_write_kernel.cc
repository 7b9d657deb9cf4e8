#include "kernels/kv_write/kv_write_kernel.h"

#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

template <class Elem>
void Write(const float* from, const KvStream& stream, uint32_t page, int64_t entry) {
  const int size = stream.head_dim;
  for (int head = 0; head < stream.kv_heads; ++head, from += size) {
    Elem* to = reinterpret_cast<Elem*>(stream.Head(page, head)) + entry * size;
    int c = 0;
    for (; c + kLanes <= size; c += kLanes) Store(to + c, Load(from + c));
    if (c < size) Store(to + c, Load(from + c, size - c), size - c);
  }
}

void Write(const Tensor& from, int64_t token, const KvStream& stream, const uint32_t* pages,
           int64_t position) {
  const uint32_t page = pages[position / stream.entries_per_page];
  const auto write = stream.dtype == DType::kF32 ? Write<float> : Write<Bf16>;
  write(from.f32(token), stream, page, position % stream.entries_per_page);
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
