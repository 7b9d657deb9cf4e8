#include "kernels/nsa_attention/nsa_attention_reference.h"

#include <algorithm>
#include <vector>

#include "kernels/reference_attention.h"

namespace troupe {
namespace {

std::vector<int64_t> SelectedTokens(const int32_t* blocks, int count, int64_t last) {
  std::vector<int64_t> tokens;
  for (int i = 0; i < count && blocks[i] >= 0; ++i) {
    const int64_t first = static_cast<int64_t>(blocks[i]) * kBlockTokens;
    const int64_t end = std::min(first + kBlockTokens, last + 1);
    for (int64_t token = first; token < end; ++token) tokens.push_back(token);
  }
  return tokens;
}

}  // namespace

void NsaAttentionReference(const NsaAttentionParams& params) {
  const int groups = params.k.kv_heads;
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
    for (int head = 0; head < params.heads; ++head) {
      const int group = head / (params.heads / groups);
      const int32_t* blocks = params.selected + (token * groups + group) * params.selected_blocks;
      AttendAndMix(params.q, params.scale, params.k, params.v, params.tables, slot, group,
                   SelectedTokens(blocks, params.selected_blocks, params.batch.position[token]),
                   params.mix, token, head, params.out);
    }
  }
}

}  // namespace troupe
