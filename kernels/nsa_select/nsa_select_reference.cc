#include "kernels/nsa_select/nsa_select_reference.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/reference_attention.h"

namespace troupe {
namespace {

// S of the header's formula, in f32 and by ascending i, for the blocks 0 .. own. `mass` is P.
std::vector<float> BlockScores(const std::vector<float>& mass, const NsaSizes& sizes, int own) {
  const int64_t count = static_cast<int64_t>(mass.size());
  std::vector<float> scores(own + 1, 0.0F);
  for (int64_t j = 0; j <= own; ++j) {
    const int64_t begin = j * kBlockTokens;
    const int64_t end = begin + kBlockTokens;
    // The compression blocks that end after `begin` and start before `end`.
    const int64_t first = begin - sizes.compress_block + sizes.compress_stride;
    for (int64_t i = std::max<int64_t>(0, first) / sizes.compress_stride;
         i < count && i * sizes.compress_stride < end; ++i) {
      const int64_t start = i * sizes.compress_stride;
      const int64_t shared = std::min(start + sizes.compress_block, end) - std::max(start, begin);
      const int64_t strides = shared / sizes.compress_stride;
      scores[j] += static_cast<float>(strides) * mass[i];
    }
  }
  return scores;
}

// Ascending, at most sizes.selected_blocks.
std::vector<int> ChooseBlocks(const std::vector<float>& scores, const NsaSizes& sizes) {
  const int own = static_cast<int>(scores.size()) - 1;
  const auto always = [&](int j) {
    return j < sizes.initial_blocks || j > own - sizes.local_blocks;
  };
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    if (always(a) != always(b)) return always(a);
    return !always(a) && scores[a] > scores[b];
  });
  order.resize(std::min<size_t>(order.size(), sizes.selected_blocks));
  std::sort(order.begin(), order.end());
  return order;
}

// One token and KV group: attends to the compressed entries and returns P.
std::vector<float> AttendGroup(const NsaSelectParams& params, int64_t token, int group,
                               const std::vector<int64_t>& entries) {
  const uint32_t slot = params.batch.slot[params.batch.token_row[token]];
  const int group_heads = params.heads / params.k.kv_heads;
  std::vector<double> mass(entries.size(), 0.0);
  for (int head = group * group_heads; head < (group + 1) * group_heads; ++head) {
    const float* q = params.q.f32(token) + static_cast<int64_t>(head) * params.k.head_dim;
    const std::vector<double> weights =
        AttentionWeights(q, params.scale, params.k, params.tables, slot, group, entries);
    for (size_t i = 0; i < entries.size(); ++i) mass[i] += weights[i];
    std::vector<double> attended(params.k.head_dim, 0.0);
    if (params.mix.At(token, head) != 0) {
      attended = WeightedSum(weights, params.v, params.tables, slot, group, entries);
    }
    MixHead(params.mix, token, head, attended, params.out);
  }
  return {mass.begin(), mass.end()};
}

bool AllClosed(const NsaSelectParams& params, int64_t token, int group) {
  const int group_heads = params.heads / params.k.kv_heads;
  for (int head = group * group_heads; head < (group + 1) * group_heads; ++head) {
    if (params.mix.At(token, head) != 0) return false;
  }
  return true;
}

}  // namespace

void NsaSelectReference(const NsaSelectParams& params) {
  const NsaSizes& sizes = params.sizes;
  const int groups = params.k.kv_heads;
  // Compression block i is stored at entry i + shift.
  const int shift = (sizes.compress_block - 1) / sizes.compress_stride;
  for (int64_t token = 0; token < params.batch.tokens; ++token) {
    const int64_t position = params.batch.position[token];
    const int64_t visible = std::max<int64_t>(0, (position + 1) / sizes.compress_stride - shift);
    std::vector<int64_t> entries(visible);
    std::iota(entries.begin(), entries.end(), shift);
    for (int group = 0; group < groups; ++group) {
      int32_t* selected = params.selected + (token * groups + group) * sizes.selected_blocks;
      std::fill_n(selected, sizes.selected_blocks, -1);
      const std::vector<float> mass = AttendGroup(params, token, group, entries);
      if (AllClosed(params, token, group)) continue;
      const int own = static_cast<int>(position / kBlockTokens);
      const std::vector<int> chosen = ChooseBlocks(BlockScores(mass, sizes, own), sizes);
      std::copy(chosen.begin(), chosen.end(), selected);
    }
  }
}

}  // namespace troupe
