// Device code of kernels/nsa_compress/nsa_compress.h for heads whose two matrices fit in shared
// memory: f32 throughout.
//
// A team of blocks has one KV head, its keys or its values, and some of the step's tokens in a row.
// It loads the matrices when it finds the first token that ends an entry. Each block of a team,
// which is a cluster, takes a share of the entry's raw tokens; the first one gathers the logits and
// puts down the entry. In a step of few tokens the teams are large, since what counts is how long
// one entry takes; in a prompt a team is one block.
//
// Invariant: a logit is summed in the order of its inputs and an entry in that of its tokens, so
// that its bits do not depend on the team.
#ifndef TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_SHARED_CUH_
#define TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_SHARED_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/pages.cuh"
#include "kernels/nsa_compress/nsa_compress.h"

namespace troupe {

inline constexpr int kTeamChannels = 128;  // of a head, at most: a thread each
inline constexpr int kTeamBlocks = 4;      // of a team in a step of few tokens

// How a team's blocks share out an entry's raw tokens.
template <int kBlocks>
struct CompressTeam {
  static constexpr int kGroups = 2;                      // of threads, with tokens of their own
  static constexpr int kTokens = kBlocks == 1 ? 16 : 4;  // that a thread has at once
  static constexpr int kThreads = kGroups * kTeamChannels;
};

// Rows of a matrix are a little apart, so that threads that read a column meet in no bank.
constexpr int TeamMatrixStride(int head_dim) { return head_dim + 4; }

constexpr int64_t TeamSharedBytes(int block, int head_dim, int blocks) {
  const int64_t mine = (block + blocks - 1) / blocks;
  const int64_t floats = 2 * int64_t{head_dim} * TeamMatrixStride(head_dim)  // w1, w2
                         + 2 * int64_t{block} * head_dim                     // z, logits
                         + 2 * mine * head_dim;                              // u, and what w1 makes
  return floats * static_cast<int64_t>(sizeof(float));
}

struct CompressTeams {
  NsaCompressParams params;
  int tokens_a_team = 0;
};

struct TeamShared {
  float* w1;
  float* w2;
  float* z;       // [block, D] raw vectors
  float* logits;  // [block, D] of the first block
  float* u;       // [own tokens, D]
  float* inner;   // [own tokens, D]

  __device__ TeamShared(float* shared, int block, int mine, int head_dim)
      : w1(shared),
        w2(w1 + head_dim * TeamMatrixStride(head_dim)),
        z(w2 + head_dim * TeamMatrixStride(head_dim)),
        logits(z + block * head_dim),
        u(logits + block * head_dim),
        inner(u + mine * head_dim) {}
};

__device__ __forceinline__ void StartMatrix(const float* w, float* to, int head_dim) {
  const int fours = head_dim / 4;
  for (int i = static_cast<int>(threadIdx.x); i < head_dim * fours;
       i += static_cast<int>(blockDim.x)) {
    CopyAsync16(to + i / fours * TeamMatrixStride(head_dim) + i % fours * 4,
                w + static_cast<int64_t>(i) * 4, true);
  }
  CommitCopies();
}

// store(m, channel, sum over c of w[channel][c] * x[m][c]) for the block's `count` tokens.
template <class Team, class Store>
__device__ __forceinline__ void TeamProduct(const float* w, const float* x, int count, int head_dim,
                                            const Store& store) {
  const int channel = static_cast<int>(threadIdx.x) % kTeamChannels;
  const int group = static_cast<int>(threadIdx.x) / kTeamChannels;
  if (channel >= head_dim) return;
  const float* row = w + channel * TeamMatrixStride(head_dim);
  for (int first = group * Team::kTokens; first < count; first += Team::kGroups * Team::kTokens) {
    float sums[Team::kTokens] = {};
#pragma unroll 4
    for (int c = 0; c < head_dim; c += 4) {
      float weights[4];
      LoadElements<4>(row + c, weights);
#pragma unroll
      for (int m = 0; m < Team::kTokens; ++m) {
        float values[4];
        LoadElements<4>(x + min(first + m, count - 1) * head_dim + c, values);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m] = __fmaf_rn(weights[i], values[i], sums[m]);
      }
    }
#pragma unroll
    for (int m = 0; m < Team::kTokens; ++m) {
      if (first + m < count) store(first + m, channel, sums[m]);
    }
  }
}

// The softmax over the tokens' logits, applied to their raw vectors; norm and store. `norm`: the
// thread's channel's.
template <class Element>
__device__ __forceinline__ void StoreEntry(const NsaCompressParams& params, bool is_key,
                                           Element* to, float norm, const TeamShared& shared,
                                           float* warp_sums) {
  const int head_dim = params.k.head_dim;
  const int block = params.sizes.compress_block;
  const auto channel = static_cast<int>(threadIdx.x);
  const bool mine = channel < head_dim;
  float mean = 0;
  if (mine) {
    float largest = -INFINITY;
#pragma unroll 8
    for (int m = 0; m < block; ++m) {
      largest = fmaxf(largest, shared.logits[m * head_dim + channel]);
    }
    float sum = 0;
    float weighted = 0;
#pragma unroll 8
    for (int m = 0; m < block; ++m) {
      const float weight = expf(shared.logits[m * head_dim + channel] - largest);
      sum = __fadd_rn(sum, weight);
      weighted = __fmaf_rn(weight, shared.z[m * head_dim + channel], weighted);
    }
    mean = __fdiv_rn(weighted, sum);
  }
  float scale = 1;
  if (is_key) {
    const float squares = BlockSum(mean * mean, warp_sums);
    scale = 1.0F / sqrtf(squares / static_cast<float>(head_dim) + params.eps);
  }
  if (mine) to[channel] = Narrow<Element>(mean * scale * norm);
}

// The entry that ends with the token. Called by all blocks of a team.
template <class Raw, class Element, int kBlocks>
__device__ __forceinline__ void CompressEntry(const NsaCompressParams& params, uint32_t slot,
                                              int last, int rank, const TeamShared& shared,
                                              float* warp_sums) {
  using Team = CompressTeam<kBlocks>;
  const int block = params.sizes.compress_block;
  const auto head = static_cast<int>(blockIdx.y);
  const bool is_key = blockIdx.z == 0;
  const KvStream& raw = is_key ? params.raw_k : params.raw_v;
  const float* position = (is_key ? params.phi_k : params.phi_v).position;
  const int head_dim = raw.head_dim;
  const int share = (block + kBlocks - 1) / kBlocks;
  const int first_mine = min(rank * share, block);
  const int count = min(share, block - first_mine);
  // Asked for here, so that nothing waits for them at the end.
  auto* to =
      const_cast<Element*>(EntryAt<Element>(is_key ? params.k : params.v, params.tables, slot,
                                            last / params.sizes.compress_stride, head));
  const auto thread = static_cast<int>(threadIdx.x);
  const float norm = is_key && thread < head_dim ? params.k_norm[thread] : 1;
  // The first block needs all raw vectors.
  const int begin = rank == 0 ? 0 : first_mine;
  const int end = rank == 0 ? block : first_mine + count;
#pragma unroll 4
  for (int i = begin * head_dim + static_cast<int>(threadIdx.x); i < end * head_dim;
       i += Team::kThreads) {
    const int m = i / head_dim;
    const float z =
        Widen(EntryAt<Raw>(raw, params.raw_tables, slot, last + 1 - block + m, head)[i % head_dim]);
    shared.z[i] = z;
    if (m >= first_mine && m < first_mine + count) {
      shared.u[i - first_mine * head_dim] = z + position[i];
    }
  }
  WaitForCopies<0>();
  __syncthreads();
  TeamProduct<Team>(shared.w1, shared.u, count, head_dim, [&](int m, int channel, float sum) {
    shared.inner[m * head_dim + channel] = Silu(sum);
  });
  __syncthreads();
  // The first block has begun, and has done with what it gathered before.
  if constexpr (kBlocks > 1) WaitForCluster();
  TeamProduct<Team>(shared.w2, shared.inner, count, head_dim, [&](int m, int channel, float sum) {
    float* to = shared.logits + (first_mine + m) * head_dim + channel;
    if constexpr (kBlocks > 1) {
      StoreInCluster(to, 0, sum);
    } else {
      *to = sum;
    }
  });
  if constexpr (kBlocks > 1) {
    ArriveInCluster();
    WaitForCluster();
  } else {
    __syncthreads();
  }
  if (rank == 0) StoreEntry(params, is_key, to, norm, shared, warp_sums);
  __syncthreads();
  if constexpr (kBlocks > 1) ArriveInCluster();
}

// Grid: teams in x, KV heads in y, keys and then values in z. Dynamic shared memory:
// TeamSharedBytes. Requires head sizes that are multiples of 4, up to kTeamChannels, and matrices
// to 16 bytes.
template <class Raw, class Element, int kBlocks>
__global__ void __launch_bounds__(CompressTeam<kBlocks>::kThreads, 1)
    NsaCompressTeamKernel(const __grid_constant__ CompressTeams teams) {
  extern __shared__ __align__(16) float compress_shared[];
  __shared__ float warp_sums[CompressTeam<kBlocks>::kThreads / kWarpSize];
  const NsaCompressParams& params = teams.params;
  const NsaSizes& sizes = params.sizes;
  const NsaPhi& phi = blockIdx.z == 0 ? params.phi_k : params.phi_v;
  const int head_dim = params.k.head_dim;
  const int rank = kBlocks > 1 ? RankInCluster() : 0;
  const TeamShared shared(compress_shared, sizes.compress_block,
                          (sizes.compress_block + kBlocks - 1) / kBlocks, head_dim);
  WaitForEarlierKernels();
  LetNextKernelBegin();
  if constexpr (kBlocks > 1) ArriveInCluster();
  const int first_token = static_cast<int>(blockIdx.x) / kBlocks * teams.tokens_a_team;
  const int end_token = min(params.batch.tokens, first_token + teams.tokens_a_team);
  const auto lane = static_cast<int>(threadIdx.x % kWarpSize);
  bool loaded = false;
  for (int begin = first_token; begin < end_token; begin += kWarpSize) {
    // Every warp looks for itself; all find the same.
    const int token = begin + lane;
    const bool is_token = token < end_token;
    const int last = is_token ? params.batch.position[token] : -1;
    const uint32_t slot = is_token ? params.batch.slot[params.batch.token_row[token]] : 0;
    const int first = last + 1 - sizes.compress_block;
    unsigned ending =
        __ballot_sync(kAllLanes, last >= 0 && first >= 0 && first % sizes.compress_stride == 0);
    if (ending != 0 && !loaded) {
      loaded = true;
      StartMatrix(phi.w1, shared.w1, head_dim);
      StartMatrix(phi.w2, shared.w2, head_dim);
    }
    for (; ending != 0; ending &= ending - 1) {
      const int found = __ffs(static_cast<int>(ending)) - 1;
      CompressEntry<Raw, Element, kBlocks>(params, __shfl_sync(kAllLanes, slot, found),
                                           __shfl_sync(kAllLanes, last, found), rank, shared,
                                           warp_sums);
    }
  }
  // A block's shared memory stays until all have arrived for the last time.
  if constexpr (kBlocks > 1) WaitForCluster();
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_NSA_COMPRESS_NSA_COMPRESS_SHARED_CUH_
