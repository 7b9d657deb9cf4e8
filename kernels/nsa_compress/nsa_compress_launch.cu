#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/nsa_compress/nsa_compress.cuh"
#include "kernels/nsa_compress/nsa_compress_cuda.h"
#include "kernels/nsa_compress/nsa_compress_shared.cuh"

namespace troupe {
namespace {

// From so many tokens on a step has entries enough for teams of one block.
constexpr int kManyTokens = 1024;

// Whether teams take an operation. What decides is the same in every step of a model.
bool TeamsTake(const NsaCompressParams& params) {
  constexpr int64_t kMostShared = int64_t{226} << 10;
  const int head_dim = params.k.head_dim;
  for (const NsaPhi* phi : {&params.phi_k, &params.phi_v}) {
    for (const float* matrix : {phi->w1, phi->w2}) {
      if (reinterpret_cast<uintptr_t>(matrix) % 16 != 0) return false;
    }
  }
  return head_dim % 4 == 0 && head_dim <= kTeamChannels &&
         TeamSharedBytes(params.sizes.compress_block, head_dim, 1) <= kMostShared;
}

template <class Raw, class Element, int kBlocks>
void LaunchTeams(const NsaCompressParams& params, const CudaContext& context) {
  const int heads = 2 * params.k.kv_heads;  // keys' and values'
  const int tokens = params.batch.tokens;
  const int most = std::clamp(context.multiprocessors / (heads * kBlocks), 1, tokens);
  CompressTeams teams;
  teams.params = params;
  teams.tokens_a_team = static_cast<int>(CeilDiv(tokens, most));
  const auto count = static_cast<unsigned>(CeilDiv(tokens, teams.tokens_a_team));
  Launch(NsaCompressTeamKernel<Raw, Element, kBlocks>,
         {.grid = dim3(count * kBlocks, static_cast<unsigned>(params.k.kv_heads), 2),
          .threads = CompressTeam<kBlocks>::kThreads,
          .shared_bytes = TeamSharedBytes(params.sizes.compress_block, params.k.head_dim, kBlocks),
          .cluster = kBlocks},
         context, teams);
}

template <class Raw, class Element>
void LaunchBlocks(const NsaCompressParams& params, const CudaContext& context) {
  const dim3 grid(static_cast<unsigned>(params.batch.tokens),
                  static_cast<unsigned>(params.k.kv_heads), 2);
  Launch(NsaCompressKernel<Raw, Element>,
         {.grid = grid,
          .threads = kCompressThreads,
          .shared_bytes = CompressSharedBytes(params.sizes.compress_block, params.k.head_dim),
          .overlaps = false},
         context, params);
}

}  // namespace

void NsaCompressCuda(const NsaCompressParams& params, const CudaContext& context) {
  const NsaSizes& sizes = params.sizes;
  const KvStream& k = params.k;
  CHECK_EQ(sizes.compress_block % sizes.compress_stride, 0);
  CHECK_EQ(kBlockTokens % sizes.compress_stride, 0);
  CHECK_EQ(params.raw_k.head_dim, k.head_dim);
  CHECK_EQ(params.raw_v.head_dim, k.head_dim);
  CHECK_EQ(params.v.head_dim, k.head_dim);
  CHECK_EQ(params.raw_k.kv_heads, k.kv_heads);
  CHECK(params.raw_v.dtype == params.raw_k.dtype && params.v.dtype == k.dtype)
      << "keys and values of different dtypes";
  if (params.batch.tokens == 0) return;
  WithElement(params.raw_k.dtype, [&](auto raw) {
    WithElement(k.dtype, [&](auto element) {
      using Raw = decltype(raw);
      using Element = decltype(element);
      if (!TeamsTake(params)) {
        LaunchBlocks<Raw, Element>(params, context);
      } else if (params.batch.tokens < kManyTokens) {
        LaunchTeams<Raw, Element, kTeamBlocks>(params, context);
      } else {
        LaunchTeams<Raw, Element, 1>(params, context);
      }
    });
  });
}

}  // namespace troupe
