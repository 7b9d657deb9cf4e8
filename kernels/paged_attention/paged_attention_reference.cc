#include "kernels/paged_attention/paged_attention_reference.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/reference_attention.h"

namespace troupe {

void PagedAttentionReference(const PagedAttentionParams& params) {
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    const int64_t last = params.batch.position[token];
    const int64_t first = params.window > 0 ? std::max<int64_t>(0, last - params.window + 1) : 0;
    std::vector<int64_t> entries(last - first + 1);
    std::iota(entries.begin(), entries.end(), first);
    const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
    for (int head = 0; head < params.heads; ++head) {
      AttendAndMix(params.q, params.scale, params.k, params.v, params.tables, slot,
                   head / (params.heads / params.k.kv_heads), entries, params.mix, token, head,
                   params.out, params.sinks == nullptr ? nullptr : &params.sinks[head]);
    }
  }
}

}  // namespace troupe
