#include <algorithm>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/nsa_select/nsa_select.cuh"
#include "kernels/nsa_select/nsa_select_cuda.h"

namespace troupe {
namespace {

// P and S of as many tokens as fit in this much scratch memory are formed at once.
constexpr int64_t kScratchFloats = int64_t{32} << 20;

void LaunchChoice(NsaChoiceParams params, const CudaContext& context) {
  const KvStream& k = params.attention.k;
  const int64_t a_token = k.kv_heads * (params.most_entries + params.most_blocks);
  const int64_t tokens = params.attention.batch.tokens;
  const int64_t at_once = std::clamp<int64_t>(kScratchFloats / a_token, 1, tokens);
  params.mass = context.scratch.Take<float>(at_once * k.kv_heads * params.most_entries);
  params.scores = context.scratch.Take<float>(at_once * k.kv_heads * params.most_blocks);
  if (!context.errors.ok()) return;
  params.attention.stages = 1;
  const AttentionShape shape = {.key_dim = k.head_dim,
                                .value_dim = params.attention.v.head_dim,
                                .element_bytes = BytesOf(k.dtype)};
  const int64_t shared_bytes = AttentionSharedBytes(shape, /*stages=*/1);
  // The list of choices lies where attention keeps values.
  CHECK_LE(params.sizes.selected_blocks * static_cast<int64_t>(sizeof(int)),
           kAttentionTile * shape.value_dim * shape.element_bytes);
  WithElement(k.dtype, [&](auto element) {
    auto* kernel = NsaChooseKernel<decltype(element)>;
    AllowSharedMemory(kernel, shared_bytes, context.errors);
    for (int64_t first = 0; first < tokens; first += at_once) {
      params.first_token = static_cast<int>(first);
      const dim3 grid(static_cast<unsigned>(std::min(at_once, tokens - first)),
                      static_cast<unsigned>(k.kv_heads));
      kernel<<<grid, kAttentionThreads, shared_bytes, context.stream>>>(params);
    }
  });
}

}  // namespace

void NsaSelectCuda(const NsaSelectParams& params, const CudaContext& context) {
  const NsaSizes& sizes = params.sizes;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  CHECK_LE(sizes.initial_blocks + sizes.local_blocks, sizes.selected_blocks);
  if (params.batch.tokens == 0) return;
  NsaChoiceParams choice;
  AttentionParams& attention = choice.attention;
  attention = CommonAttention(params);
  attention.stride = sizes.compress_stride;
  attention.shift = (sizes.compress_block - 1) / sizes.compress_stride;
  attention.softmax = context.scratch.Take<float2>(int64_t{params.batch.tokens} * params.heads);
  if (!context.errors.ok()) return;
  const int64_t tiles = TilesOfTables(params.batch, params.tables, params.k.entries_per_page);
  LaunchAttention<Seen::kCompressed>(attention, tiles, context);
  choice.sizes = sizes;
  choice.most_entries = tiles * kAttentionTile;
  choice.most_blocks = CeilDiv(choice.most_entries, params.k.entries_per_page);
  choice.selected = params.selected;
  if (context.errors.ok()) LaunchChoice(choice, context);
}

}  // namespace troupe
