// What a computing warpgroup of kernels/cuda/attention_units.cuh does with its 64 rows: softmax in
// registers, parts and their merge, and results.
#ifndef TROUPE_KERNELS_CUDA_ATTENTION_UNITS_ROWS_CUH_
#define TROUPE_KERNELS_CUDA_ATTENTION_UNITS_ROWS_CUH_

#include "kernels/cuda/attention_units.cuh"

namespace troupe {

// Over the 4 lanes that share a row, every one of which gets it.
__device__ __forceinline__ float RowMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ __forceinline__ float RowSum(float value) {
  value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, 1));
  return __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, 2));
}

// Where a part of a token's head lies among partial results.
__device__ __forceinline__ int64_t PartialPlace(const UnitAttentionParams& params, int64_t token,
                                                int head, int part) {
  const AttentionParams& attention = params.attention;
  return ((token - params.first_token) * attention.heads + head) * attention.parts + part;
}

// A thread's two rows, 8 apart.
struct UnitRows {
  int token[2];
  int head[2];
  int first_entry[2];  // that the row sees
  int end_entry[2];    // first_entry: it sees none, or there is no such row
  bool exists[2];
};

template <Seen kSeen>
__device__ __forceinline__ UnitRows FindRows(const UnitAttentionParams& params,
                                             const UnitTask& task, int warpgroup) {
  const AttentionParams& attention = params.attention;
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  UnitRows rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = thread / kWarpSize * 16 + thread % kWarpSize / 4 + r * 8;
    const int place = row / task.heads;
    rows.token[r] = task.first_token + warpgroup * params.tokens_a_warpgroup + place;
    rows.head[r] = task.first_head + row % task.heads;
    rows.exists[r] = place < params.tokens_a_warpgroup && rows.token[r] < task.end_token;
    rows.first_entry[r] = rows.end_entry[r] = 0;
    if (!rows.exists[r]) continue;
    const int position = attention.batch.position[rows.token[r]];
    if constexpr (kSeen == Seen::kCompressed) {
      rows.first_entry[r] = attention.shift;
      rows.end_entry[r] = max(attention.shift, (position + 1) / attention.stride);
    } else {
      rows.end_entry[r] = position + 1;
      if (kSeen == Seen::kWindow && attention.window > 0) {
        rows.first_entry[r] = max(0, position - attention.window + 1);
      }
    }
  }
  return rows;
}

// Whether a row sees anything of a part: if not, its merge does not ask for it.
template <Seen kSeen>
__device__ __forceinline__ bool SeesPart(const UnitRows& rows, int r, int part) {
  if (!rows.exists[r] || kSeen == Seen::kSelected) return rows.exists[r];
  return rows.first_entry[r] < FirstTileOfPart(part + 1) * kAttentionTile &&
         rows.end_entry[r] > FirstTileOfPart(part) * kAttentionTile;
}

// Queries of `rows` rows as bf16 in column blocks of as many, zeros for rows and channels that do
// not exist. Of `threads` threads this is number `thread`.
template <int kKeyBlocks>
__device__ __forceinline__ void LoadUnitQueries(const UnitAttentionParams& params,
                                                const UnitTask& task, int warpgroup,
                                                std::byte* queries, int rows, int thread,
                                                int threads) {
  const AttentionParams& attention = params.attention;
  const int head_dim = attention.k.head_dim;
  constexpr int kChunks = kKeyBlocks * 8;
  for (int i = thread; i < rows * kChunks; i += threads) {
    const int row = i / kChunks;
    const int chunk = i % kChunks;
    const int place = row / task.heads;
    const int64_t token = task.first_token + warpgroup * params.tokens_a_warpgroup + place;
    float values[8] = {};
    if (place < params.tokens_a_warpgroup && token < task.end_token && chunk * 8 < head_dim) {
      const float* from = attention.q + token * attention.q_stride +
                          (task.first_head + row % task.heads) * head_dim + chunk * 8;
      if (params.q_aligned) {
        LoadElements<8>(from, values);
      } else {
#pragma unroll
        for (int c = 0; c < 8; ++c) values[c] = from[c];
      }
    }
    const uint4 packed = {PackPair(values[0], values[1]), PackPair(values[2], values[3]),
                          PackPair(values[4], values[5]), PackPair(values[6], values[7])};
    *reinterpret_cast<uint4*>(queries + chunk / 8 * rows * kSwizzledRowBytes +
                              SwizzledOffset(row, chunk % 8)) = packed;
  }
}

// A thread's share of its warpgroup's queries as bf16, as products take them from registers.
template <class Sizes>
struct UnitQueries {
  static constexpr int kSteps = Sizes::kQueriesInRegisters ? Sizes::kKeyBlocks * 4 : 1;

  uint32_t fragments[kSteps][4];

  __device__ __forceinline__ void Load(const UnitAttentionParams& params, const UnitRows& rows) {
    if (params.q_aligned) {
      LoadBy(params, rows, [](const float* from) {
        const float2 pair = *reinterpret_cast<const float2*>(from);
        return PackPair(pair.x, pair.y);
      });
    } else {
      LoadBy(params, rows, [](const float* from) { return PackPair(from[0], from[1]); });
    }
  }

  // Loads something for every fragment, so that no branch keeps loads from being under way at once.
  template <class LoadPair>
  __device__ __forceinline__ void LoadBy(const UnitAttentionParams& params, const UnitRows& rows,
                                         const LoadPair& load) {
    const AttentionParams& attention = params.attention;
    const int head_dim = attention.k.head_dim;
    const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float* q = attention.q + (rows.exists[r] ? rows.token[r] * attention.q_stride +
                                                           rows.head[r] * head_dim
                                                     : 0);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int channel = step * 16 + half * 8 + column;
          const bool inside = rows.exists[r] && channel < head_dim;
          const uint32_t pair = load(q + (channel < head_dim ? channel : 0));
          fragments[step][half * 2 + r] = inside ? pair : 0;
        }
      }
    }
  }
};

// Softmax of a thread's two rows over the tiles of a part. The sum is of the thread's own columns.
struct UnitSoftmax {
  float largest[2] = {-INFINITY, -INFINITY};  // score, before it is scaled
  float sum[2] = {0, 0};

  // Scores of a tile become weights; returns what sums formed so far are to be multiplied with.
  __device__ __forceinline__ float2 Weigh(float (&scores)[32], float scale_log2) {
    float factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float high = largest[r];
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        high = fmaxf(high, fmaxf(scores[j + 2 * r], scores[j + 2 * r + 1]));
      }
      high = RowMax(high);
      // A row that has seen nothing yet weighs against 0, and so keeps weights of 0.
      const float shift = high == -INFINITY ? 0.0F : __fmul_rn(high, scale_log2);
      // Exactly 1 where the largest stays the same: no fused product here, which is not rounded.
      factors[r] = Exp2(__fadd_rn(__fmul_rn(largest[r], scale_log2), -shift));
      largest[r] = high;
      float added = 0;
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        float& low = scores[j + 2 * r];
        float& next = scores[j + 2 * r + 1];
        low = Exp2(__fmaf_rn(low, scale_log2, -shift));
        next = Exp2(__fmaf_rn(next, scale_log2, -shift));
        added = __fadd_rn(added, __fadd_rn(low, next));
      }
      sum[r] = __fmaf_rn(sum[r], factors[r], added);
    }
    return {factors[0], factors[1]};
  }

  __device__ __forceinline__ PartMerge Finish(int r, float scale_log2) const {
    return {largest[r] == -INFINITY ? -INFINITY : __fmul_rn(largest[r], scale_log2),
            RowSum(sum[r])};
  }
};

// Takes out the scores of entries that a row does not see.
__device__ __forceinline__ void HideScores(const UnitRows& rows, int first, float (&scores)[32]) {
  const int column = first + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    const int entry = column + j / 4 * 8 + j % 2;
    const int r = j / 2 % 2;
    if (entry < rows.first_entry[r] || entry >= rows.end_entry[r]) scores[j] = -INFINITY;
  }
}

__device__ __forceinline__ void StoreScores(const UnitAttentionParams& params, const UnitRows& rows,
                                            int first, const float (&scores)[32]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (!rows.exists[r]) continue;
    const int64_t row =
        static_cast<int64_t>(rows.token[r] - params.first_token) * params.attention.heads +
        rows.head[r];
    float* to = params.scores + row * params.score_stride + first +
                static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      *reinterpret_cast<float2*>(to + j * 8) = {scores[j * 4 + 2 * r], scores[j * 4 + 2 * r + 1]};
    }
  }
}

__device__ __forceinline__ void PackWeights(const float (&weights)[32], uint32_t (&packed)[4][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      packed[step][i] = PackPair(weights[step * 8 + i * 2], weights[step * 8 + i * 2 + 1]);
    }
  }
}

template <int kSums>
__device__ __forceinline__ void ScaleSums(float (&sums)[kSums], const float2& factors) {
#pragma unroll
  for (int j = 0; j < kSums; ++j) {
    sums[j] = __fmul_rn(sums[j], j / 2 % 2 == 0 ? factors.x : factors.y);
  }
}

// As PartMerge::Add, which knows no rows that have seen nothing.
__device__ __forceinline__ float2 AddPart(PartMerge& merge, const PartMerge& part) {
  if (fmaxf(merge.largest, part.largest) == -INFINITY) return {0, 0};
  return merge.Add(part.largest, part.sum);
}

// Parts that a thread has been through, where its block walks over all of them.
template <class Sizes>
struct UnitMerged {
  static constexpr bool kInShared = Sizes::kMergedInShared;
  static constexpr int kHere = Sizes::kWhole && !kInShared ? Sizes::kSums : 1;

  PartMerge merge[2] = {{-INFINITY, 0}, {-INFINITY, 0}};
  float here[kHere];
  float4* shared = nullptr;  // this thread's first four sums; the next ones a warpgroup further
  bool any = false;

  __device__ void Add(const float (&sums)[Sizes::kSums], const UnitSoftmax& softmax,
                      float scale_log2) {
    float2 factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factors[r] = AddPart(merge[r], softmax.Finish(r, scale_log2));
    }
    if constexpr (kInShared) {
#pragma unroll
      for (int j = 0; j < Sizes::kSums; j += 4) {
        float4& four = shared[j / 4 * kWarpgroupThreads];
        const float4 before = any ? four : float4{0, 0, 0, 0};
        four = {MergeSums(before.x, sums[j], factors[0]),
                MergeSums(before.y, sums[j + 1], factors[0]),
                MergeSums(before.z, sums[j + 2], factors[1]),
                MergeSums(before.w, sums[j + 3], factors[1])};
      }
    } else {
#pragma unroll
      for (int j = 0; j < kHere; ++j) {
        here[j] = MergeSums(any ? here[j] : 0.0F, sums[j], factors[j / 2 % 2]);
      }
    }
    any = true;
  }

  // The sums, in place of those of the last part.
  __device__ void Take(float (&sums)[Sizes::kSums]) const {
    if constexpr (kInShared) {
#pragma unroll
      for (int j = 0; j < Sizes::kSums; j += 4) {
        const float4 four = any ? shared[j / 4 * kWarpgroupThreads] : float4{0, 0, 0, 0};
        sums[j] = four.x;
        sums[j + 1] = four.y;
        sums[j + 2] = four.z;
        sums[j + 3] = four.w;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kHere; ++j) sums[j] = any ? here[j] : 0.0F;
    }
  }
};

__device__ __forceinline__ float FinishUnit(float sum, float rescale, float weight, float factor) {
  if (factor == 0 || !(weight > 0)) return 0;
  return __fmul_rn(factor, __fdiv_rn(__fmul_rn(sum, rescale), weight));
}

// The token's result, or zeros for a closed head, two channels at a time; see HeadMix.
template <class Sizes>
__device__ __forceinline__ void StoreUnitRow(const UnitAttentionParams& params,
                                             const UnitRows& rows, int r, PartMerge merge,
                                             const float (&sums)[Sizes::kSums]) {
  const AttentionParams& attention = params.attention;
  const float factor = FactorOf(attention.mix, rows.token[r], rows.head[r]);
  if (attention.softmax != nullptr && threadIdx.x % 4 == 0) {
    attention.softmax[static_cast<int64_t>(rows.token[r]) * attention.heads + rows.head[r]] = {
        merge.largest, merge.sum};
  }
  const bool accumulate = attention.mix.accumulate;
  if (factor == 0 && accumulate) return;
  const int head_dim = attention.v.head_dim;
  float rescale = 1;
  if (attention.sinks != nullptr) rescale = merge.Add(attention.sinks[rows.head[r]] * kLog2E, 1).x;
  float* out = attention.out + rows.token[r] * attention.out_stride + rows.head[r] * head_dim;
#pragma unroll
  for (int j = 0; j < Sizes::kSums; j += 4) {
    const int channel = j * 2 + static_cast<int>(threadIdx.x) % 4 * 2;
    if (channel >= head_dim) continue;
    const float2 result = {FinishUnit(sums[j + 2 * r], rescale, merge.sum, factor),
                           FinishUnit(sums[j + 2 * r + 1], rescale, merge.sum, factor)};
    float2 before = {0, 0};
    if (params.out_aligned) {
      if (accumulate) before = *reinterpret_cast<const float2*>(out + channel);
      *reinterpret_cast<float2*>(out + channel) = {__fadd_rn(before.x, result.x),
                                                   __fadd_rn(before.y, result.y)};
    } else {
      if (accumulate) before = {out[channel], out[channel + 1]};
      out[channel] = __fadd_rn(before.x, result.x);
      out[channel + 1] = __fadd_rn(before.y, result.y);
    }
  }
}

// Sums of channels from `first_channel` on of a row's part.
template <int kSums>
__device__ __forceinline__ void StorePartial(const UnitAttentionParams& params,
                                             const UnitRows& rows, int r, int part,
                                             int first_channel, const float (&sums)[kSums]) {
  const int head_dim = params.attention.v.head_dim;
  const int lane = static_cast<int>(threadIdx.x) % 4;
  const int64_t place = PartialPlace(params, rows.token[r], rows.head[r], part);
  float* to = params.attention.partial + place * head_dim;
#pragma unroll
  for (int j = 0; j < kSums; j += 4) {
    const int channel = first_channel + j * 2 + lane * 2;
    if (channel >= head_dim) continue;
    *reinterpret_cast<float2*>(to + channel) = {sums[j + 2 * r], sums[j + 2 * r + 1]};
  }
}

__device__ __forceinline__ void StorePartialSoftmax(const UnitAttentionParams& params,
                                                    const UnitRows& rows, int r, int part,
                                                    const PartMerge& merge) {
  if (threadIdx.x % 4 != 0) return;
  params.partial_softmax[PartialPlace(params, rows.token[r], rows.head[r], part)] = {merge.largest,
                                                                                     merge.sum};
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_ATTENTION_UNITS_ROWS_CUH_
