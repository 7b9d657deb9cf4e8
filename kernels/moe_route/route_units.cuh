// The router's product on the matrix units and the choice of experts in one kernel, for routers of
// bf16: x, of f32, is the sum of three bf16 numbers, so that products are exact and sums are of
// f32.
//
// A block has 16 tokens and kExpertTiles * 8 experts; its warps share out the inputs. Where a
// cluster of blocks has all experts, its blocks send each other the logits of the tokens that each
// chooses for; otherwise the block that finishes its tokens' last logits does.
//
// Invariant: a logit's sum runs in an order that the number of inputs alone decides.
#ifndef TROUPE_KERNELS_MOE_ROUTE_ROUTE_UNITS_CUH_
#define TROUPE_KERNELS_MOE_ROUTE_ROUTE_UNITS_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/linear/linear_matrix_units.cuh"
#include "kernels/moe_route/moe_route.cuh"
#include "kernels/rms_norm/rows_to_shared.cuh"

namespace troupe {

inline constexpr int kRouteWarps = 16;  // one chooses for each of a block's tokens
inline constexpr int kRouteThreads = kRouteWarps * kWarpSize;
inline constexpr int kRouteTokens = 16;  // of a block
static_assert(kRouteTokens <= kRouteWarps);
inline constexpr int kRouteInputs = 32;  // of two products: a lane has 8 of them, one after another
inline constexpr int kRouteExpertTile = 8;

struct UnitsRoute {
  MoeRouteParams route;      // whose logits are written
  const float* x = nullptr;  // [T, inputs], rows at multiples of 16 bytes
  int64_t x_stride = 0;
  const CudaBf16* router = nullptr;    // [E, inputs]
  const float* router_bias = nullptr;  // [E]; null: none
  // A multiple of kRouteInputs; to norm x, every warp must have some.
  int inputs = 0;
  bool in_cluster = false;      // all blocks of a group of tokens are one cluster, which chooses
  unsigned* arrived = nullptr;  // [groups of tokens] zero before and after; null: do not choose
};

// Of a block's shared memory: warps' sums, and what choosing needs after them.
__host__ __device__ inline int RouteWorkFloats(int expert_tiles, const MoeRouteParams& route) {
  const int sums = kRouteWarps * kRouteTokens * expert_tiles * kRouteExpertTile;
  const int choice = kRouteTokens * (static_cast<int>(route.logits.cols) + route.groups);
  return sums > choice ? sums : choice;
}

// A number's three parts: each the nearest bf16 to what those before it leave.
struct Bf16Parts {
  uint32_t part[3];  // of two neighbours
};
__device__ __forceinline__ Bf16Parts SplitPair(float low, float high) {
  Bf16Parts parts;
#pragma unroll
  for (uint32_t& part : parts.part) {
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(low, high);
    part = *reinterpret_cast<const uint32_t*>(&rounded);
    low -= __low2float(rounded);
    high -= __high2float(rounded);
  }
  return parts;
}

// Adds kRouteInputs products of 16 tokens and kExpertTiles * 8 experts: to sums[p], those of x's
// part p. x: 8 numbers of rows lane / 4 and lane / 4 + 8; w: 8 of expert lane / 4 of each tile.
template <int kExpertTiles>
__device__ __forceinline__ void MultiplyParts(const float (&x)[2][8],
                                              const uint4 (&w)[kExpertTiles],
                                              float (&sums)[3][kExpertTiles][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Bf16Parts a[4] = {SplitPair(x[0][half * 4], x[0][half * 4 + 1]),
                            SplitPair(x[1][half * 4], x[1][half * 4 + 1]),
                            SplitPair(x[0][half * 4 + 2], x[0][half * 4 + 3]),
                            SplitPair(x[1][half * 4 + 2], x[1][half * 4 + 3])};
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      const uint32_t rows[4] = {a[0].part[part], a[1].part[part], a[2].part[part], a[3].part[part]};
#pragma unroll
      for (int n = 0; n < kExpertTiles; ++n) {
        MultiplyAdd(sums[part][n], rows, half == 0 ? w[n].x : w[n].z, half == 0 ? w[n].y : w[n].w);
      }
    }
  }
}

// 1 / root mean square of each of the block's tokens, as RmsNormShortKernel has them: half of the
// block for a row. `squares` has a number for each warp of a half and token.
template <int kFours>
__device__ __forceinline__ void FindScales(const UnitsRoute& params, int first_token, int tokens,
                                           float (*squares)[kRmsNormThreads / kWarpSize],
                                           float* scales) {
  constexpr int kWarps = kRmsNormThreads / kWarpSize;
  constexpr int kHalves = kRouteThreads / kRmsNormThreads;
  const int thread = static_cast<int>(threadIdx.x) % kRmsNormThreads;
  for (int t = static_cast<int>(threadIdx.x) / kRmsNormThreads; t < tokens; t += kHalves) {
    const auto* row =
        reinterpret_cast<const float4*>(params.x + (first_token + t) * params.x_stride);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int four = thread + i * kRmsNormThreads;
      sum += SquaresOf(four < params.inputs / 4 ? row[four] : float4{});
    }
    sum = WarpSum(sum);
    if (thread % kWarpSize == 0) squares[t][thread / kWarpSize] = sum;
  }
  __syncthreads();
  if (threadIdx.x < tokens) {
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += squares[threadIdx.x][warp];
    scales[threadIdx.x] = ScaleOf(sum, params.inputs, params.route.norm.eps);
  }
  __syncthreads();
}

// Before x is there. FindScales makes them known to all threads.
__device__ __forceinline__ void BringNormWeights(const UnitsRoute& params, float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < params.inputs / 4; i += kRouteThreads) {
    reinterpret_cast<float4*>(shared)[i] =
        reinterpret_cast<const float4*>(params.route.norm.weight)[i];
  }
}

// 8 values of two tokens.
__device__ __forceinline__ void NormValues(const float* weights, const float (&scale)[2],
                                           float (&values)[2][8]) {
  float weight[8];
  LoadElements<8>(weights, weight);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      values[r][i] = __fmul_rn(__fmul_rn(values[r][i], scale[r]), weight[i]);
    }
  }
}

// A warp's sums, to its place.
template <int kExpertTiles>
__device__ __forceinline__ void StorePartial(const float (&sums)[3][kExpertTiles][4],
                                             float* partial) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  constexpr int kExperts = kExpertTiles * kRouteExpertTile;
#pragma unroll
  for (int n = 0; n < kExpertTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = lane / 4 + i / 2 * 8;
      const int expert = n * kRouteExpertTile + lane % 4 * 2 + i % 2;
      partial[(warp * kRouteTokens + token) * kExperts + expert] =
          sums[0][n][i] + (sums[1][n][i] + sums[2][n][i]);
    }
  }
}

// This warp's share of the inputs, as f32 sums in its place of `partial`:
// [warps][tokens][experts of the block].
template <int kExpertTiles, int kFours>
__device__ __forceinline__ void SumShare(const UnitsRoute& params, int first_token,
                                         int first_expert, float* partial) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const auto tokens = static_cast<int>(params.route.logits.rows);
  const int steps = params.inputs / kRouteInputs;
  const int begin = steps * warp / kRouteWarps;
  const int end = steps * (warp + 1) / kRouteWarps;
  const float* x[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int token = min(first_token + lane / 4 + r * 8, tokens - 1);
    x[r] = params.x + token * params.x_stride + lane % 4 * 8;
  }
  const CudaBf16* w =
      params.router + static_cast<int64_t>(first_expert + lane / 4) * params.inputs + lane % 4 * 8;
  float sums[3][kExpertTiles][4] = {};
  __shared__ float squares[kRouteTokens][kRmsNormThreads / kWarpSize];
  __shared__ float scales[kRouteTokens];
  float scale[2] = {1, 1};
  __shared__ __align__(16) float norm_weight[kFours > 0 ? kMostNormedCols : 4];
  if constexpr (kFours > 0) BringNormWeights(params, norm_weight);
  // Loads of kAhead steps go out together, of experts also before x is there; and of x, which
  // FindScales has brought near, of kTogether.
  constexpr int kAhead = kExpertTiles <= 2 ? 4 : 1;
  constexpr int kTogether = kExpertTiles == 1 ? 4 : kExpertTiles == 2 ? 2 : 1;
  for (int step = begin; step < end; step += kAhead) {
    uint4 weights[kAhead][kExpertTiles];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = min(step + i, end - 1) * kRouteInputs;
#pragma unroll
      for (int n = 0; n < kExpertTiles; ++n) {
        weights[i][n] = *reinterpret_cast<const uint4*>(
            w + static_cast<int64_t>(n) * kRouteExpertTile * params.inputs + at);
      }
    }
    if (step == begin) WaitForEarlierKernels();
    if constexpr (kFours > 0) {
      if (step == begin) {
        const int count = min(kRouteTokens, tokens - first_token);
        FindScales<kFours>(params, first_token, count, squares, scales);
        scale[0] = scales[min(lane / 4, count - 1)];
        scale[1] = scales[min(lane / 4 + 8, count - 1)];
      }
    }
#pragma unroll
    for (int first = 0; first < kAhead; first += kTogether) {
      float values[kTogether][2][8];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int at = min(step + first + i, end - 1) * kRouteInputs;
#pragma unroll
        for (int r = 0; r < 2; ++r) LoadElements<8>(x[r] + at, values[i][r]);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (step + first + i >= end) break;
        if constexpr (kFours > 0) {
          NormValues(norm_weight + (step + first + i) * kRouteInputs + lane % 4 * 8, scale,
                     values[i]);
        }
        MultiplyParts<kExpertTiles>(values[i], weights[first + i], sums);
      }
    }
  }
  StorePartial<kExpertTiles>(sums, partial);
}

// The cluster's blocks take turns with its tokens. `logits`: room in every block for all of a
// group's tokens, of which it gets those that it chooses for.
__device__ __forceinline__ void ChooseInCluster(const MoeRouteParams& route, int first_token,
                                                int tokens, const float* logits, float* shared) {
  const auto experts = static_cast<int>(route.logits.cols);
  ArriveInCluster();
  WaitForCluster();
  const int token = static_cast<int>(threadIdx.x) / kWarpSize;
  if (token >= tokens || token % static_cast<int>(gridDim.x) != RankInCluster()) return;
  RouteToken(route, first_token + token, logits + token * experts,
             shared + token * (experts + route.groups));
}

// Grid: groups of experts in x, of tokens in y. Dynamic shared memory: UnitsRouteSharedBytes.
// kFours: see kernels/rms_norm/rows_to_shared.cuh.
template <int kExpertTiles, int kFours>
__global__ void __launch_bounds__(kRouteThreads, 1) UnitsRouteKernel(UnitsRoute params) {
  extern __shared__ float units_route_shared[];
  __shared__ bool is_last;
  constexpr int kExperts = kExpertTiles * kRouteExpertTile;
  const MoeRouteParams& route = params.route;
  const int first_token = static_cast<int>(blockIdx.y) * kRouteTokens;
  const int first_expert = static_cast<int>(blockIdx.x) * kExperts;
  const int tokens = min(kRouteTokens, static_cast<int>(route.logits.rows) - first_token);
  LetNextKernelBegin();
  // Others' shared memory is written to only once they have begun.
  if (params.in_cluster) ArriveInCluster();
  SumShare<kExpertTiles, kFours>(params, first_token, first_expert, units_route_shared);
  // Warps without a share of the inputs have not waited.
  WaitForEarlierKernels();
  float* cluster_logits = units_route_shared + RouteWorkFloats(kExpertTiles, route);
  if (params.in_cluster) WaitForCluster();
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < tokens * kExperts; i += kRouteThreads) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kRouteWarps; ++warp) {
      sum += units_route_shared[warp * kRouteTokens * kExperts + i];
    }
    const int expert = first_expert + i % kExperts;
    if (params.router_bias != nullptr) sum += params.router_bias[expert];
    const int token = i / kExperts;
    static_cast<float*>(route.logits.data)[(first_token + token) * route.logits.stride + expert] =
        sum;
    if (params.in_cluster) {
      StoreInCluster(cluster_logits + token * static_cast<int>(route.logits.cols) + expert,
                     token % static_cast<int>(gridDim.x), sum);
    }
  }
  if (params.in_cluster) {
    return ChooseInCluster(route, first_token, tokens, cluster_logits, units_route_shared);
  }
  if (params.arrived == nullptr) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicInc(params.arrived + blockIdx.y, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  const int token = static_cast<int>(threadIdx.x) / kWarpSize;
  const auto floats = static_cast<int>(route.logits.cols) + route.groups;
  if (token < tokens) {
    RouteToken(route, first_token + token, LogitsOf(route, first_token + token),
               units_route_shared + token * floats);
  }
}

inline int64_t UnitsRouteSharedBytes(int expert_tiles, const UnitsRoute& params) {
  const int64_t in_cluster = params.in_cluster ? kRouteTokens * params.route.logits.cols : 0;
  return (RouteWorkFloats(expert_tiles, params.route) + in_cluster) *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_ROUTE_UNITS_CUH_
