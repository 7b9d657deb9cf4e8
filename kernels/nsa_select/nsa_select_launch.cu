#include <algorithm>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_units_launch.cuh"
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

// Attention on the matrix units leaves the scores, so that keys are read once.
void LaunchWithScores(NsaChoiceParams params, int64_t tiles, const CudaContext& context) {
  constexpr int64_t kScoreFloats = int64_t{64} << 20;
  constexpr int64_t kMostShared = int64_t{200} << 10;
  const AttentionParams& attention = params.attention;
  const int kv_heads = attention.k.kv_heads;
  const int64_t tokens = attention.batch.tokens;
  params.given_stride = params.most_entries;
  const int64_t a_token = attention.heads * params.given_stride;
  const int64_t at_once = std::clamp<int64_t>(kScoreFloats / a_token, 1, tokens);
  auto* given = context.scratch.Take<float>(at_once * a_token);
  params.given = given;
  int64_t shared_bytes = attention.heads / kv_heads * static_cast<int64_t>(sizeof(float2)) +
                         params.sizes.selected_blocks * static_cast<int64_t>(sizeof(int));
  const int64_t a_list = params.most_entries + params.most_blocks;
  if (a_list * static_cast<int64_t>(sizeof(float)) <= kMostShared) {
    shared_bytes += a_list * static_cast<int64_t>(sizeof(float));
  } else {
    params.mass = context.scratch.Take<float>(at_once * kv_heads * params.most_entries);
    params.scores = context.scratch.Take<float>(at_once * kv_heads * params.most_blocks);
  }
  UnitLaunch launch = MakeUnitLaunch<Seen::kCompressed>(attention, tiles, context);
  launch.params.scores = given;
  launch.params.score_stride = params.given_stride;
  // The parts are merged beside the choice, which needs no results but scores.
  const bool merges = launch.choice.parts > 1;
  launch.choice.parts = 1;
  const bool few = at_once * kv_heads < int64_t{4} * context.multiprocessors;
  for (int64_t first = 0; first < tokens; first += at_once) {
    const int64_t end = std::min(tokens, first + at_once);
    launch.params.first_token = static_cast<int>(first);
    launch.params.end_token = static_cast<int>(end);
    RunUnitLaunch<Seen::kCompressed>(launch, context);
    if (!context.errors.ok()) return;
    params.first_token = static_cast<int>(first);
    Launch(NsaChooseGivenKernel,
           {.grid = dim3(static_cast<unsigned>(end - first),
                         static_cast<unsigned>(kv_heads + (merges ? 1 : 0))),
            .threads = few ? 1024 : 256,
            .shared_bytes = shared_bytes},
           context, params, launch.params);
  }
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
  choice.sizes = sizes;
  choice.most_entries = tiles * kAttentionTile;
  choice.most_blocks = CeilDiv(choice.most_entries, params.k.entries_per_page);
  choice.selected = params.selected;
  if (UnitsTake<Seen::kCompressed>(attention)) {
    LaunchWithScores(choice, tiles, context);
    return;
  }
  LaunchAttention<Seen::kCompressed>(attention, tiles, context);
  if (context.errors.ok()) LaunchChoice(choice, context);
}

}  // namespace troupe
