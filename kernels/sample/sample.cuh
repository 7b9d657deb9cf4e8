// Device code of kernels/sample/sample.h: one block a row.
//
// Kept candidates are a beginning of the order by weight and id, so a threshold and a number of
// ties name them. Top-k's is found by counting, top-p's by summing, digit by digit of the weights'
// bits, which order positive floats. Sums are of whole multiples of 2^-40: they do not depend on
// the order in which they are formed.
#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_CUH_
#define TROUPE_KERNELS_SAMPLE_SAMPLE_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/sample/sample.h"

namespace troupe {

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleWarps = kSampleThreads / kWarpSize;
inline constexpr int kSampleBins = 2048;

using SampleSum = unsigned long long;  // what atomicAdd takes

struct SampleShared {
  SampleSum bins[kSampleBins];
  SampleSum sums[kSampleWarps];
  unsigned ties[kSampleWarps];
  float largest[kSampleWarps];
  unsigned best[kSampleWarps];
  SampleSum chosen_sum;
  unsigned chosen;
  unsigned chosen_ties;
};

// A beginning of the candidates: those of larger weight, and of equal weight the first `ties`.
struct SampleThreshold {
  unsigned bits = 0;
  unsigned ties = 0xffffffffU;
};

__device__ __forceinline__ SampleSum SumUnits(float weight) {
  return __float2ull_rn(__fmul_rn(weight, 0x1p40F));
}

__device__ __forceinline__ SampleSum WarpSumUnits(SampleSum value) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

// One row: its logits, and what a block's threads know of them.
struct SampleRow {
  const float* logits;
  int count;
  float largest;
  float temperature;
  float min_p;

  __device__ __forceinline__ float Weight(int token) const {
    return expf(__fdiv_rn(logits[token] - largest, temperature));
  }
};

// The lowest token of the largest logit, and that logit; kDamagedLogits where there is none, or a
// number that makes no sense.
__device__ unsigned FindBest(const float* logits, int count, SampleShared& shared, float& largest) {
  float mine = -INFINITY;
  unsigned best = kDamagedLogits;
  bool damaged = false;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kSampleThreads) {
    const float logit = logits[i];
    damaged = damaged || !(logit < INFINITY);
    if (logit > mine) {
      mine = logit;
      best = static_cast<unsigned>(i);
    }
  }
  const auto merge = [&](float other, unsigned other_best) {
    if (other > mine || (other == mine && other_best < best)) {
      mine = other;
      best = other_best;
    }
  };
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, mine, step);
    merge(other, __shfl_xor_sync(kAllLanes, best, step));
  }
  if (threadIdx.x % kWarpSize == 0) {
    shared.largest[threadIdx.x / kWarpSize] = mine;
    shared.best[threadIdx.x / kWarpSize] = best;
  }
  damaged = __syncthreads_or(damaged) != 0;
  for (int warp = 0; warp < kSampleWarps; ++warp) {
    merge(shared.largest[warp], shared.best[warp]);
  }
  largest = mine;
  return damaged || mine == -INFINITY ? kDamagedLogits : best;
}

// Which bin, from the highest down, brings the sum of bins to `wanted`; `wanted` becomes what is
// left for it to give. The bins hold that much.
__device__ unsigned FindBin(SampleShared& shared, SampleSum& wanted) {
  constexpr int kPerThread = kSampleBins / kSampleThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  // Thread 0 has the highest bins.
  const int highest = kSampleBins - 1 - static_cast<int>(threadIdx.x) * kPerThread;
  SampleSum mine = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) mine += shared.bins[highest - i];
  SampleSum upto = mine;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const SampleSum before = __shfl_up_sync(kAllLanes, upto, step);
    if (lane >= step) upto += before;
  }
  if (lane == kWarpSize - 1) shared.sums[warp] = upto;
  __syncthreads();
  for (int w = 0; w < warp; ++w) upto += shared.sums[w];
  SampleSum above = upto - mine;
  if (above < wanted && upto >= wanted) {
    int bin = highest;
    while (above + shared.bins[bin] < wanted) above += shared.bins[bin--];
    shared.chosen = static_cast<unsigned>(bin);
    shared.chosen_sum = wanted - above;
  }
  __syncthreads();
  wanted = shared.chosen_sum;
  return shared.chosen;
}

// The threshold of the fewest best candidates whose measure, 1 or the weight in units, sums up to
// `wanted`, which is more than 0 and no more than all have.
template <bool kCounts>
__device__ SampleThreshold FindThreshold(const SampleRow& row, SampleSum wanted,
                                         SampleShared& shared) {
  constexpr int kShifts[] = {21, 10, 0};
  constexpr unsigned kDigits[] = {2047, 2047, 1023};
  unsigned found = 0;
  unsigned known = 0;  // mask of the digits found
#pragma unroll
  for (int digit = 0; digit < 3; ++digit) {
    for (int i = static_cast<int>(threadIdx.x); i < kSampleBins; i += kSampleThreads) {
      shared.bins[i] = 0;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < row.count; i += kSampleThreads) {
      const float weight = row.Weight(i);
      const unsigned bits = __float_as_uint(weight);
      if ((bits & known) != found) continue;
      const SampleSum measure = kCounts ? 1 : SumUnits(weight);
      if (measure > 0) atomicAdd(&shared.bins[bits >> kShifts[digit] & kDigits[digit]], measure);
    }
    __syncthreads();
    found |= FindBin(shared, wanted) << kShifts[digit];
    known |= kDigits[digit] << kShifts[digit];
  }
  if constexpr (kCounts) return {found, static_cast<unsigned>(wanted)};
  const SampleSum each = SumUnits(__uint_as_float(found));
  return {found, static_cast<unsigned>((wanted + each - 1) / each)};
}

// The sum of tokens [first, end) that are kept whatever the ties, and how many ties there are; for
// whole warps, the same in all lanes.
__device__ __forceinline__ SampleSum SumKept(const SampleRow& row, const SampleThreshold& threshold,
                                             int first, int end, unsigned& ties) {
  SampleSum sum = 0;
  unsigned equal = 0;
  for (int i = first + static_cast<int>(threadIdx.x) % kWarpSize; i < end; i += kWarpSize) {
    const float weight = row.Weight(i);
    const unsigned bits = __float_as_uint(weight);
    if (weight < row.min_p) continue;
    if (bits > threshold.bits) sum += SumUnits(weight);
    if (bits == threshold.bits) ++equal;
  }
  ties = __reduce_add_sync(kAllLanes, equal);
  return WarpSumUnits(sum);
}

// Of tokens [first, end), cut into a piece a warp: fills shared.sums with each piece's sum, of
// which the first `ties` ties are a part; returns the sum of all and leaves pieces' ties in
// shared.ties.
__device__ SampleSum SumPieces(const SampleRow& row, const SampleThreshold& threshold, int first,
                               int end, int piece, SampleShared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int begin = min(end, first + warp * piece);
  unsigned ties = 0;
  const SampleSum sum = SumKept(row, threshold, begin, min(end, begin + piece), ties);
  __syncthreads();  // all have read what the last pieces left
  if (threadIdx.x % kWarpSize == 0) {
    shared.sums[warp] = sum;
    shared.ties[warp] = ties;
  }
  __syncthreads();
  const SampleSum each = SumUnits(__uint_as_float(threshold.bits));
  SampleSum total = 0;
  unsigned left = threshold.ties;
  for (int w = 0; w < kSampleWarps; ++w) {
    const unsigned kept = min(left, shared.ties[w]);
    left -= kept;
    total += shared.sums[w] + kept * each;
  }
  return total;
}

// The first token at which the sum of kept weights, in order of ids, exceeds a share of the whole.
__device__ unsigned DrawToken(const SampleRow& row, SampleThreshold threshold, double share,
                              SampleShared& shared) {
  const SampleSum each = SumUnits(__uint_as_float(threshold.bits));
  int first = 0;
  int end = row.count;
  SampleSum left = 0;
  for (bool whole = true; whole || end - first > kWarpSize; whole = false) {
    const int chunks = (end - first + kWarpSize - 1) / kWarpSize;
    const int piece = (chunks + kSampleWarps - 1) / kSampleWarps * kWarpSize;
    const SampleSum total = SumPieces(row, threshold, first, end, piece, shared);
    if (whole) {
      left = min(static_cast<SampleSum>(share * static_cast<double>(total)), total - 1);
    }
    // Every thread walks alike to the piece in which the sum exceeds `left`.
    int w = 0;
    for (; w < kSampleWarps - 1; ++w) {
      const unsigned kept = min(threshold.ties, shared.ties[w]);
      const SampleSum sum = shared.sums[w] + kept * each;
      if (sum > left) break;
      left -= sum;
      threshold.ties -= kept;
    }
    first += w * piece;
    end = min(end, first + piece);
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int token = first + lane;
  const float weight = token < end ? row.Weight(token) : 0.0F;
  const bool eligible = token < end && weight >= row.min_p;
  const unsigned equal =
      __ballot_sync(kAllLanes, eligible && __float_as_uint(weight) == threshold.bits);
  const bool is_tie = (equal >> lane & 1) != 0;
  const bool kept = eligible && (__float_as_uint(weight) > threshold.bits ||
                                 (is_tie && __popc(equal & ((1U << lane) - 1)) < threshold.ties));
  SampleSum upto = kept ? SumUnits(weight) : 0;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const SampleSum before = __shfl_up_sync(kAllLanes, upto, step);
    if (lane >= step) upto += before;
  }
  const unsigned exceeding = __ballot_sync(kAllLanes, upto > left);
  return static_cast<unsigned>(first + __ffs(static_cast<int>(exceeding)) - 1);
}

// The draw of a row whose largest logit is known.
__device__ unsigned DrawFrom(const SampleRow& row, const SampleRule& rule, SampleShared& shared) {
  SampleThreshold threshold;
  if (rule.top_k > 0 && rule.top_k < row.count) {
    threshold = FindThreshold<true>(row, rule.top_k, shared);
  }
  if (rule.top_p < 1) {
    SampleRow all = row;
    all.min_p = 0;
    const int chunks = (row.count + kWarpSize - 1) / kWarpSize;
    const int piece = (chunks + kSampleWarps - 1) / kSampleWarps * kWarpSize;
    const SampleSum total = SumPieces(all, threshold, 0, row.count, piece, shared);
    const auto wanted =
        static_cast<SampleSum>(ceil(static_cast<double>(rule.top_p) * static_cast<double>(total)));
    threshold = FindThreshold<false>(row, min(max(wanted, SampleSum{1}), total), shared);
  }
  return DrawToken(row, threshold, Uniform01(rule.seed, rule.output_index), shared);
}

// Grid: rows.
__global__ void __launch_bounds__(kSampleThreads) SampleKernel(SampleParams params) {
  __shared__ SampleShared shared;
  LetNextKernelBegin();
  WaitForEarlierKernels();
  const int64_t index = blockIdx.x;
  const SampleRule rule = params.rules[index];
  SampleRow row;
  row.logits = static_cast<const float*>(params.logits.data) + index * params.logits.stride;
  row.count = static_cast<int>(params.logits.cols);
  row.temperature = rule.temperature;
  row.min_p = rule.min_p;
  unsigned token = FindBest(row.logits, row.count, shared, row.largest);
  if (token != kDamagedLogits && rule.temperature > 0) token = DrawFrom(row, rule, shared);
  if (threadIdx.x > 0) return;
  params.tokens[index] = token;
  if (params.last_tokens != nullptr) {
    params.last_tokens[rule.slot] = token == kDamagedLogits ? 0 : token;
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_SAMPLE_SAMPLE_CUH_
