// Products of codes with few rows of x, at the speed at which codes can be read: every warp streams
// one segment of one tile at a time straight into registers, several units ahead, and makes numbers
// of them there. Rows of x lie in shared memory.
#ifndef TROUPE_KERNELS_LINEAR_CODED_FEW_ROWS_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_FEW_ROWS_CUH_

#include "kernels/linear/coded_units.cuh"
#include "kernels/linear/weight_stream.cuh"

namespace troupe {

struct CodedFewRows {
  const float* x = nullptr;  // [rows, inputs], rounded to bf16 here; rows at multiples of 16 bytes
  int64_t x_stride = 0;
  int rows = 0;
  CodedView w;
  const float* bias = nullptr;  // [outputs]; null: none
  float* out = nullptr;         // [rows, outputs]
  int64_t out_stride = 0;
  bool accumulate = false;
  int tiles = 0;  // of a block at a time
};

// One warp's way through a tile's segment.
template <CodedKind kKind>
class CodedStream {
 public:
  using Unit = LoadedUnit<kKind>;
  static constexpr int kAhead = kKind == CodedKind::kInt4Zeros ? 6 : 8;

  __device__ CodedStream(const CodedView& w, int segment)
      : w_(w),
        first_(segment * w.segment_inputs / Unit::kInputs),
        end_(min((segment + 1) * w.segment_inputs, w.padded_inputs) / Unit::kInputs) {}

  // Begins to load a tile.
  __device__ __forceinline__ void Start(int tile) {
    codes_ = Unit::CodesOf(w_, tile, Lane());
    scales_ = Unit::ScalesOf(w_, tile, Lane());
#pragma unroll
    for (int i = 0; i < kAhead; ++i) Load(i, first_ + i);
  }

  // That tile's products with rows of x. x[n]: row lane % 8 of column tile n, at the chunk that
  // lane / 8 has.
  template <int kColumnTiles>
  __device__ __forceinline__ void Multiply(const uint32_t (&x)[kColumnTiles],
                                           float (&sums)[kColumnTiles][4]) {
    int unit = first_;
    for (; unit + kAhead <= end_; unit += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        MultiplyUnit<kColumnTiles>(units_[i], x, (unit + i) * Unit::kInputs * 2, sums);
        Load(i, unit + i + kAhead);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (unit + i >= end_) break;
      MultiplyUnit<kColumnTiles>(units_[i], x, (unit + i) * Unit::kInputs * 2, sums);
    }
  }

 private:
  __device__ static int Lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

  __device__ __forceinline__ void Load(int slot, int unit) {
    if (unit < end_) units_[slot].Load(w_, codes_, scales_, unit);
  }

  template <int kColumnTiles>
  __device__ __forceinline__ static void MultiplyUnit(const Unit& unit,
                                                      const uint32_t (&x)[kColumnTiles], int x_byte,
                                                      float (&sums)[kColumnTiles][4]) {
#pragma unroll
    for (int half = 0; half < Unit::kHalves; ++half) {
      const GroupFactors<kKind> factors(unit.scales[half]);
      uint32_t a[2][4];
      DecodeStep<kKind>(unit.codes, half * 2, factors, a[0]);
      DecodeStep<kKind>(unit.codes, half * 2 + 1, factors, a[1]);
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        uint32_t columns[4];
        LoadMatricesAt(columns, x[n] + x_byte + half * 64);
        MultiplyAdd(sums[n], a[0], columns[0], columns[1]);
        MultiplyAdd(sums[n], a[1], columns[2], columns[3]);
      }
    }
  }

  const CodedView& w_;
  int first_;
  int end_;
  const uint4* codes_ = nullptr;
  int64_t scales_ = 0;
  Unit units_[kAhead];
};

// Rows of f32 as rows of bf16 in shared memory, with zeros behind them.
__device__ __forceinline__ void RoundRowsPadded(const CodedFewRows& product, int row_bytes,
                                                std::byte* to) {
  constexpr int kAtOnce = 8;  // loads that are under way
  const int fours = product.w.padded_inputs / 4;
  const int threads = static_cast<int>(blockDim.x);
  // A thread's next place, kept up without divisions.
  int row = 0;
  int at = static_cast<int>(threadIdx.x);
  const auto settle = [&] {
    while (at >= fours && row < product.rows) {
      at -= fours;
      ++row;
    }
  };
  settle();
  while (row < product.rows) {
    float4 values[kAtOnce];
    uint2* places[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool valid = row < product.rows;
      const auto* from = reinterpret_cast<const float4*>(product.x + row * product.x_stride);
      places[i] = valid ? reinterpret_cast<uint2*>(to + row * row_bytes) + at : nullptr;
      values[i] = valid && at < product.w.inputs / 4 ? from[at] : float4{};
      at += threads;
      settle();
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (places[i] != nullptr) *places[i] = RoundedFour(values[i]);
    }
  }
}

// A segment's sums of a warp, and how they become outputs.
template <int kColumnTiles>
class CodedSegments {
 public:
  static constexpr int kSums = kColumnTiles * 4;

  // `partial`: [warps, kSums, 32] in shared memory, the warps of a tile's segments `step` apart.
  __device__ CodedSegments(const CodedFewRows& product, float* partial, int step)
      : product_(product), partial_(partial), step_(step) {}

  __device__ void Keep(int warp, const float (&sums)[kColumnTiles][4]) const {
#pragma unroll
    for (int i = 0; i < kSums; ++i) At(warp, i) = sums[i / 4][i % 4];
  }

  // Of the tile whose first segment `warp` had.
  __device__ void Store(int warp, int tile, const float (&sums)[kColumnTiles][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int segments = product_.w.segments;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const int row = i / 4 * kCodedColumns + lane % 4 * 2 + i % 2;
      const int output = tile * kCodedTileOutputs + lane / 4 + i % 4 / 2 * 8;
      if (row >= product_.rows || output >= product_.w.outputs) continue;
      float* to = product_.out + row * product_.out_stride + output;
      const float bias = product_.bias == nullptr ? 0.0F : product_.bias[output];
      float sum = segments == 1 ? sums[i / 4][i % 4] + bias : sums[i / 4][i % 4];
      if (product_.accumulate) sum = *to + sum;
      for (int segment = 1; segment < segments; ++segment) {
        const float part = At(warp + segment * step_, i);
        sum += segment == segments - 1 ? part + bias : part;
      }
      *to = sum;
    }
  }

 private:
  __device__ float& At(int warp, int sum) const {
    return partial_[(warp * kSums + sum) * kWarpSize + threadIdx.x % kWarpSize];
  }

  const CodedFewRows& product_;
  float* partial_;
  int step_;
};

// Dynamic shared memory: CodedXBytes a row. A block has product.tiles * segments warps.
template <CodedKind kKind, int kColumnTiles>
__global__ void __launch_bounds__(kMostCodedWarps* kWarpSize, 1)
    CodedFewRowsKernel(CodedFewRows product) {
  extern __shared__ __align__(128) std::byte coded_few_rows_shared[];
  __shared__ float partial[kMostCodedWarps * kColumnTiles * 4 * kWarpSize];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int tiles = (product.w.outputs + kCodedTileOutputs - 1) / kCodedTileOutputs;
  const int step = static_cast<int>(gridDim.x) * product.tiles;
  // Neighbouring blocks have neighbouring tiles: all are busy alike.
  int tile = warp % product.tiles * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  CodedStream<kKind> stream(product.w, warp / product.tiles);
  if (tile < tiles) stream.Start(tile);
  WaitForEarlierKernels();
  const int row_bytes = product.w.padded_inputs * 2 + 16;
  RoundRowsPadded(product, row_bytes, coded_few_rows_shared);
  __syncthreads();
  LetNextKernelBegin();
  uint32_t x_at[kColumnTiles];
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
    const int row = min(n * kCodedColumns + lane % 8, product.rows - 1);
    x_at[n] = SharedAddress(coded_few_rows_shared) + row * row_bytes + lane / 8 * 16;
  }
  const CodedSegments<kColumnTiles> segments(product, partial, product.tiles);
  // Warps whose tiles are through keep the others company at the barriers.
  for (int round = 0; round * step < tiles; ++round, tile += step) {
    float sums[kColumnTiles][4] = {};
    if (tile < tiles) stream.Multiply(x_at, sums);
    if (tile + step < tiles) stream.Start(tile + step);
    if (product.w.segments > 1) {
      if (round > 0) __syncthreads();
      segments.Keep(warp, sums);
      __syncthreads();
    }
    if (warp < product.tiles && tile < tiles) segments.Store(warp, tile, sums);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_FEW_ROWS_CUH_
