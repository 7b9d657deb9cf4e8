// Experts of few tokens in two kernels: every block finds out by itself which experts were chosen,
// and warps stream those experts' rows (kernels/linear/weight_stream.cuh).
//
// Invariant: the order of every sum is that of the kernels for many tokens.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_FEW_TOKENS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_FEW_TOKENS_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/linear/weight_stream.cuh"
#include "kernels/moe_experts/moe_experts_choice.h"

namespace troupe {

struct FewTokensExperts {
  const int32_t* chosen = nullptr;  // [tokens, top_k]; negative: none
  const float* weights = nullptr;   // [tokens, top_k]
  int tokens = 0;
  int top_k = 0;
  int experts = 0;
  const float* x = nullptr;  // [tokens, hidden]
  int64_t x_stride = 0;
  int hidden = 0;
  int size = 0;
  const CUtensorMap* gate_up = nullptr;  // [experts], of MapStream
  const CUtensorMap* down = nullptr;
  const float* const* gate_up_bias = nullptr;  // [experts], null: none
  const float* const* down_bias = nullptr;
  Activation activation;
  CudaBf16* inner = nullptr;      // [tokens * top_k, size], between the kernels
  const float* shared = nullptr;  // [tokens, hidden]; null: none
  float* out = nullptr;           // [tokens, hidden]
  int64_t out_stride = 0;
  bool accumulate = true;
  InputNorm norm;
  FewTokensChoice choice;
};

// The experts that were chosen, with the pairs that chose each.
struct ExpertSlots {
  int count;
  int expert[kMostFewPairs];
  int size[kMostFewPairs];
  uint8_t pairs[kMostFewPairs][kMostFewTokens];
};

// The same where there is one token, whose experts are all different, with a warp for its choices.
__device__ __forceinline__ void FindSlotsOfOne(const FewTokensExperts& params, ExpertSlots& slots) {
  const int pair = static_cast<int>(threadIdx.x);
  if (pair < kWarpSize) {
    const int expert = pair < params.top_k ? __ldcg(params.chosen + pair) : -1;
    const unsigned valid = __ballot_sync(kAllLanes, expert >= 0);
    if (expert >= 0) {
      const int slot = __popc(valid & ((1U << pair) - 1));
      slots.expert[slot] = expert;
      slots.size[slot] = 1;
      slots.pairs[slot][0] = static_cast<uint8_t>(pair);
    }
    if (pair == 0) slots.count = __popc(valid);
  }
  __syncthreads();
}

// By all threads of the block. `first` has room for a number for every expert.
__device__ __forceinline__ void FindSlots(const FewTokensExperts& params, ExpertSlots& slots,
                                          int* first) {
  __shared__ int leaders_of_warp[kStreamThreads / kWarpSize];
  __shared__ int slot_of[kMostFewPairs];
  const int pairs = params.tokens * params.top_k;
  const int pair = static_cast<int>(threadIdx.x);
  if (params.tokens == 1 && pairs <= kWarpSize) return FindSlotsOfOne(params, slots);
  const int expert = pair < pairs ? __ldcg(params.chosen + pair) : -1;
  for (int e = pair; e < params.experts; e += kStreamThreads) first[e] = kMostFewPairs;
  if (pair < kMostFewPairs) slots.size[pair] = 0;
  __syncthreads();
  if (expert >= 0) atomicMin(&first[expert], pair);
  __syncthreads();
  const bool leads = expert >= 0 && first[expert] == pair;
  const unsigned leaders = __ballot_sync(kAllLanes, leads);
  const int lane = pair % kWarpSize;
  if (lane == 0) leaders_of_warp[pair / kWarpSize] = __popc(leaders);
  __syncthreads();
  if (leads) {
    int slot = __popc(leaders & ((1U << lane) - 1));
    for (int warp = 0; warp < pair / kWarpSize; ++warp) slot += leaders_of_warp[warp];
    slot_of[pair] = slot;
    slots.expert[slot] = expert;
  }
  if (pair == 0) {
    slots.count = 0;
    for (const int count : leaders_of_warp) slots.count += count;
  }
  __syncthreads();
  if (expert >= 0) {
    const int slot = slot_of[first[expert]];
    slots.pairs[slot][atomicAdd(&slots.size[slot], 1)] = static_cast<uint8_t>(pair);
  }
  __syncthreads();
}

template <int kColumnTiles>
__device__ __forceinline__ void StoreInner(const FewTokensExperts& params, const ExpertSlots& slots,
                                           int slot, int output,
                                           const float (&sums)[kColumnTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const float* bias = params.gate_up_bias[slots.expert[slot]];
  const float gate_bias = bias == nullptr ? 0.0F : bias[output];
  const float up_bias = bias == nullptr ? 0.0F : bias[params.size + output];
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int column = n * kStreamColumns + lane % 4 * 2 + part;
      if (column >= slots.size[slot]) continue;
      params.inner[slots.pairs[slot][column] * params.size + output] = Narrow<CudaBf16>(
          Activate(params.activation, sums[n][part] + gate_bias, sums[n][part + 2] + up_bias));
    }
  }
}

// inner = activation(gate_up x). Dynamic shared memory: StreamMemory, a number an expert.
// Asks for the cache line of an address before it is used.
__device__ __forceinline__ void PrefetchToCache(const void* global) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global) : "memory");
}

// kFours: see kernels/rms_norm/rows_to_shared.cuh.
template <int kColumnTiles, int kFours>
__global__ void __launch_bounds__(kStreamThreads, 1)
    FewTokensGateUpKernel(FewTokensExperts params) {
  extern __shared__ __align__(128) std::byte few_tokens_shared[];
  __shared__ ExpertSlots slots;
  const StreamChoice& choice = params.choice.gate_up;
  const StreamMemory memory(few_tokens_shared, choice, params.tokens, params.hidden);
  const WarpRing ring = memory.Ring(choice);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const NormWeights<kFours> norm_weights(params.norm, params.hidden);
  // Maps come to the cache before it is known which will be used.
  const int map = static_cast<int>(blockIdx.x + threadIdx.x * gridDim.x);
  if (map < params.experts) PrefetchToCache(params.gate_up + map);
  WaitForEarlierKernels();
  FindSlots(params, slots, static_cast<int*>(memory.other));
  LetNextKernelBegin();

  const int tiles_an_expert = params.size / kGatedOutputs;
  const auto map_of = [&](int tile) {
    return params.gate_up + slots.expert[tile / tiles_an_expert];
  };
  const auto group_of = [&](int tile) { return tile % tiles_an_expert; };
  const int blocks = static_cast<int>(gridDim.x);
  const int step = blocks * choice.warps;
  const int count = ring.stages() > 0 ? slots.count * tiles_an_expert : 0;
  const int first =
      static_cast<int>(threadIdx.x) / kWarpSize * blocks + static_cast<int>(blockIdx.x);
  TileStream stream(ring, first, step, count, params.hidden, map_of, group_of);
  stream.FillStages();
  BringRows<kFours>(params.x, params.x_stride, params.tokens, params.hidden, norm_weights,
                    params.norm.eps, memory.x);
  __syncthreads();
  for (int tile = first; tile < count; tile += step) {
    const int slot = tile / tiles_an_expert;
    uint32_t x_at[kColumnTiles];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = min(n * kStreamColumns + lane % 8, slots.size[slot] - 1);
      x_at[n] = memory.RowOfX(slots.pairs[slot][column] / params.top_k, params.hidden);
    }
    float sums[kColumnTiles][4] = {};
    stream.Multiply(x_at, sums);
    StoreInner<kColumnTiles>(params, slots, slot, tile % tiles_an_expert * kGatedOutputs + lane / 4,
                             sums);
  }
}

// One warp's experts, one after another, for one tile of outputs: stages hold the tile's rows of
// `down`, and beside them the rows of `inner` that chose the expert.
template <int kColumnTiles>
class DownStream {
 public:
  __device__ DownStream(const FewTokensExperts& params, const ExpertSlots& slots, WarpRing ring,
                        std::byte* inner, int group)
      : params_(params),
        slots_(slots),
        ring_(ring),
        inner_(inner),
        group_(group),
        filled_{static_cast<int>(threadIdx.x) / kWarpSize, 0} {}

  // Weights first: they are there before the kernel that makes `inner` ends.
  __device__ void FillStages() {
    Place begun = filled_;
    for (int i = 0; i < ring_.stages() && begun.slot < slots_.count; ++i, Advance(begun)) {
      CopyWeights(begun);
      ring_.EndFill();
    }
    WaitForEarlierKernels();
    ring_.RewindFill();
    for (int i = 0; i < ring_.stages() && filled_.slot < slots_.count; ++i, Advance(filled_)) {
      CopyInner(filled_);
      ring_.EndFill();
    }
  }

  __device__ void Multiply(int slot, float (&sums)[kColumnTiles][4]) {
    const int lane = Lane();
    uint32_t x_at[kColumnTiles];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = min(n * kStreamColumns + lane % 8, slots_.size[slot] - 1);
      x_at[n] = SharedAddress(inner_) + column * kStreamRowBytes + lane / 8 * 16;
    }
    for (int input = 0; input < params_.size; input += kStreamInputs) {
      const uint32_t inner_at = ring_.using_stage() * params_.tokens * kStreamRowBytes;
      const uint32_t stage = ring_.Await();
      uint32_t x[kColumnTiles];
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) x[n] = x_at[n] + inner_at;
      MultiplySegment<kColumnTiles>(stage, x, min(kStreamInputs, params_.size - input), sums);
      ring_.Release();
      if (filled_.slot >= slots_.count) continue;
      CopyWeights(filled_);
      CopyInner(filled_);
      ring_.EndFill();
      Advance(filled_);
    }
  }

 private:
  struct Place {
    int slot;
    int input;
  };

  __device__ static int Lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

  __device__ void Advance(Place& place) const {
    place.input += kStreamInputs;
    if (place.input < params_.size) return;
    place.input = 0;
    place.slot += params_.choice.down.warps;
  }
  __device__ int Inputs(const Place& place) const {
    return min(kStreamInputs, params_.size - place.input);
  }
  __device__ void CopyWeights(const Place& place) {
    ring_.Fill(params_.down + slots_.expert[place.slot], group_, place.input,
               slots_.size[place.slot] * Inputs(place) * 2);
  }
  __device__ void CopyInner(const Place& place) {
    if (Lane() >= slots_.size[place.slot]) return;
    CopyBulk(inner_ + (ring_.filling() * params_.tokens + Lane()) * kStreamRowBytes,
             params_.inner + slots_.pairs[place.slot][Lane()] * params_.size + place.input,
             Inputs(place) * 2, ring_.filled());
  }

  const FewTokensExperts& params_;
  const ExpertSlots& slots_;
  WarpRing ring_;
  std::byte* inner_;
  int group_;
  Place filled_;
};

// What pairs' results are multiplied with, of those that chose an expert.
struct PairWeights {
  float of[kMostFewPairs];
  bool chose[kMostFewPairs];

  // By all threads of the block, all having been chosen; known to them after the next barrier.
  __device__ __forceinline__ void Bring(const FewTokensExperts& params) {
    const int pair = static_cast<int>(threadIdx.x);
    if (pair >= params.tokens * params.top_k) return;
    of[pair] = __ldcg(params.weights + pair);
    chose[pair] = __ldcg(params.chosen + pair) >= 0;
  }
};

static_assert(kMostFewTokens * kStreamRows <= kStreamThreads);
static_assert(kMostFewPairs <= kStreamThreads);

// An output of a token, a thread's: what is added to the experts' sum comes while these are formed.
struct CombinedOutput {
  float* to;  // null: the thread has none
  float shared = 0;
  float before = 0;

  // The earlier kernels having ended.
  __device__ __forceinline__ CombinedOutput(const FewTokensExperts& params, int first_output) {
    const int token = static_cast<int>(threadIdx.x) / kStreamRows;
    const int output = first_output + static_cast<int>(threadIdx.x) % kStreamRows;
    to = token < params.tokens ? params.out + token * params.out_stride + output : nullptr;
    if (to == nullptr) return;
    if (params.shared != nullptr) {
      shared = params.shared[static_cast<int64_t>(token) * params.hidden + output];
    }
    if (params.accumulate) before = *to;
  }

  // The token's results in the order of its choices.
  __device__ __forceinline__ void Store(const FewTokensExperts& params, const PairWeights& weights,
                                        const float* results) const {
    if (to == nullptr) return;
    const int first_pair = static_cast<int>(threadIdx.x) / kStreamRows * params.top_k;
    float sum = 0;
    for (int pair = first_pair; pair < first_pair + params.top_k; ++pair) {
      const int result = pair * kStreamRows + static_cast<int>(threadIdx.x) % kStreamRows;
      if (weights.chose[pair]) sum = __fmaf_rn(weights.of[pair], results[result], sum);
    }
    if (params.shared != nullptr) sum += shared;
    *to = params.accumulate ? before + sum : sum;
  }
};

// out = the weighted sum of `down` inner over a token's choices. A block has kStreamRows outputs of
// every token; its warps share out the experts. Dynamic shared memory: rings, a result for each
// pair and output, barriers, a number an expert.
template <int kColumnTiles>
__global__ void __launch_bounds__(kStreamThreads, 1) FewTokensDownKernel(FewTokensExperts params) {
  using Stream = DownStream<kColumnTiles>;
  extern __shared__ __align__(128) std::byte few_tokens_shared[];
  __shared__ ExpertSlots slots;
  __shared__ PairWeights pair_weights;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warps = params.choice.down.warps;
  const bool streams = warp < warps;
  const int stages = params.choice.down.stages;
  std::byte* rings = AlignedStages(few_tokens_shared);
  std::byte* inner = rings + warps * stages * kStreamTileBytes;
  const int inner_bytes = stages * params.tokens * kStreamRowBytes;  // of a warp
  auto* results = reinterpret_cast<float*>(inner + warps * inner_bytes);
  auto* barriers =
      reinterpret_cast<CopyBarrier*>(results + params.tokens * params.top_k * kStreamRows);
  const int first_stage = streams ? warp * stages : 0;
  const WarpRing ring(rings + first_stage * kStreamTileBytes, barriers + first_stage,
                      streams ? stages : 0);
  // The kernel before this one began when all was chosen.
  pair_weights.Bring(params);
  FindSlots(params, slots, reinterpret_cast<int*>(barriers + warps * stages));
  const int first_output = static_cast<int>(blockIdx.x) * kStreamRows;
  Stream stream(params, slots, ring, inner + warp * inner_bytes, static_cast<int>(blockIdx.x));
  stream.FillStages();
  LetNextKernelBegin();
  const CombinedOutput combined(params, first_output);
  for (int slot = warp; streams && slot < slots.count; slot += warps) {
    float sums[kColumnTiles][4] = {};
    stream.Multiply(slot, sums);
    const float* bias = params.down_bias[slots.expert[slot]];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int column = n * kStreamColumns + lane % 4 * 2 + part % 2;
        const int output = lane / 4 + part / 2 * 8;
        if (column >= slots.size[slot]) continue;
        const float result = sums[n][part] + (bias == nullptr ? 0.0F : bias[first_output + output]);
        // As kernels/moe_experts/grouped_product.cuh rounds them.
        results[slots.pairs[slot][column] * kStreamRows + output] = Widen(Narrow<CudaBf16>(result));
      }
    }
  }
  __syncthreads();
  combined.Store(params, pair_weights, results);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_FEW_TOKENS_CUH_
