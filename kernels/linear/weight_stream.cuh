// Products of bf16 for few rows, at the speed at which weights can be read: every warp streams its
// own weight rows through its own ring in shared memory and waits for no other warp.
//
// A tile is 16 weight rows; the rows of x, up to 8 for each column tile, are the matrix units'
// columns. Sums run over the inputs in steps of 16, in order, as in every other product of bf16
// (kernels/linear/linear_matrix_units.cuh): the same bits, however many rows there are.
#ifndef TROUPE_KERNELS_LINEAR_WEIGHT_STREAM_CUH_
#define TROUPE_KERNELS_LINEAR_WEIGHT_STREAM_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/linear/linear_matrix_units.cuh"
#include "kernels/linear/stream_choice.h"
#include "kernels/rms_norm/rows_to_shared.cuh"

namespace troupe {

// One warp's stages: tiles of kStreamRows rows by kStreamInputs inputs as StreamMap lays them out.
class WarpRing {
 public:
  // `memory` at a multiple of 1024; `barriers` has room for every stage.
  __device__ WarpRing(std::byte* memory, CopyBarrier* barriers, int stages)
      : memory_(memory), barriers_(barriers), stages_(stages) {
    for (int i = Lane(); i < stages; i += kWarpSize) InitBarrier(barriers + i, 1);
    FenceBarriers();
    __syncwarp();
  }

  // Fills the next free stage with the tile of group `group`, from input `input` on, and waits for
  // `other_bytes` besides, which the caller copies.
  __device__ void Fill(const CUtensorMap* map, int group, int input, int other_bytes = 0) {
    if (Lane() == 0) {
      ArriveExpecting(barriers_ + fill_, kStreamTileBytes + other_bytes);
      CopyTensor5(memory_ + fill_ * kStreamTileBytes, map, 0, 0, 0, group, input / kMapInputs,
                  barriers_ + fill_);
    }
    __syncwarp();
  }
  __device__ CopyBarrier* filled() const { return barriers_ + fill_; }
  __device__ int filling() const { return fill_; }
  __device__ void EndFill() { fill_ = fill_ + 1 == stages_ ? 0 : fill_ + 1; }

  // Waits for the oldest stage; it stays until Release.
  __device__ uint32_t Await() {
    WaitFor(barriers_ + use_, parity_);
    return SharedAddress(memory_ + use_ * kStreamTileBytes);
  }
  __device__ int using_stage() const { return use_; }
  __device__ void Release() {
    __syncwarp();
    use_ = use_ + 1 == stages_ ? 0 : use_ + 1;
    parity_ ^= use_ == 0 ? 1 : 0;
  }
  __device__ int stages() const { return stages_; }
  // Starts over with filling at stage 0, for what is added to stages that are under way.
  __device__ void RewindFill() { fill_ = 0; }

 private:
  __device__ static int Lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }

  std::byte* memory_;
  CopyBarrier* barriers_;
  int stages_;
  int fill_ = 0;
  int use_ = 0;
  uint32_t parity_ = 0;
};

__device__ __forceinline__ void LoadMatricesAt(uint32_t (&to)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address)
               : "memory");
}

// Products with kBlocks column blocks of a stage, of kMapInputs inputs each. Operands are loaded
// before the products that come before theirs: only these wait for one another.
template <int kColumnTiles, int kBlocks>
__device__ __forceinline__ void MultiplyBlocks(uint32_t stage, const uint32_t (&x)[kColumnTiles],
                                               float (&sums)[kColumnTiles][4]) {
  constexpr int kPairs = kBlocks * kMapInputs / (2 * kStreamUnit);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = lane % kStreamRows;
  const uint32_t swizzle = static_cast<uint32_t>(row % 8 ^ lane / kStreamRows) * 16;
  const uint32_t row_at = stage + row * kMapRowBytes;
  uint32_t w[2][2][4];
  uint32_t columns[2][kColumnTiles][4];
  const auto load = [&](int pair) {
    const uint32_t block = row_at + pair / 2 * (kStreamRows * kMapRowBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      LoadMatricesAt(w[pair % 2][half], block + (swizzle ^ (pair % 2 * 64 + half * 32)));
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) LoadMatricesAt(columns[pair % 2][n], x[n] + pair * 64);
  };
  load(0);
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    if (pair + 1 < kPairs) load(pair + 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const uint32_t(&b)[4] = columns[pair % 2][n];
        MultiplyAdd(sums[n], w[pair % 2][half], b[half * 2], b[half * 2 + 1]);
      }
    }
  }
}

// Adds `inputs` products, a multiple of kMapInputs, to a tile's sums. x[n]: row lane % 8 of column
// tile n, at the chunk that lane / 8 has.
template <int kColumnTiles>
__device__ __forceinline__ void MultiplySegment(uint32_t stage, const uint32_t (&x)[kColumnTiles],
                                                int inputs, float (&sums)[kColumnTiles][4]) {
  if (inputs == kStreamInputs) {
    MultiplyBlocks<kColumnTiles, kStreamInputs / kMapInputs>(stage, x, sums);
    return;
  }
  for (int input = 0; input < inputs; input += kMapInputs) {
    uint32_t at[kColumnTiles];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) at[n] = x[n] + input * 2;
    MultiplyBlocks<kColumnTiles, 1>(stage + input / kMapInputs * (kStreamRows * kMapRowBytes), at,
                                    sums);
  }
}

// One warp's tiles of weights, streamed one after another: `first`, `first` + `step`, ... below
// `count`. map_of(tile) and group_of(tile) say where a tile lies.
template <class MapOf, class GroupOf>
class TileStream {
 public:
  __device__ TileStream(WarpRing ring, int first, int step, int count, int inputs,
                        const MapOf& map_of, const GroupOf& group_of)
      : ring_(ring),
        step_(step),
        count_(count),
        inputs_(inputs),
        map_of_(map_of),
        group_of_(group_of),
        tile_(first) {}

  __device__ void FillStages() {
    for (int i = 0; i < ring_.stages(); ++i) Fill();
  }

  // The next tile's products with rows of x in shared memory; x_at as MultiplySegment takes it.
  template <int kColumnTiles>
  __device__ void Multiply(const uint32_t (&x_at)[kColumnTiles], float (&sums)[kColumnTiles][4]) {
    for (int input = 0; input < inputs_; input += kStreamInputs) {
      uint32_t x[kColumnTiles];
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) x[n] = x_at[n] + input * 2;
      MultiplySegment<kColumnTiles>(ring_.Await(), x, min(kStreamInputs, inputs_ - input), sums);
      ring_.Release();
      Fill();
    }
  }

 private:
  __device__ void Fill() {
    if (tile_ >= count_) return;
    ring_.Fill(map_of_(tile_), group_of_(tile_), input_);
    ring_.EndFill();
    input_ += kStreamInputs;
    if (input_ < inputs_) return;
    input_ = 0;
    tile_ += step_;
  }

  WarpRing ring_;
  int step_;
  int count_;
  int inputs_;
  MapOf map_of_;
  GroupOf group_of_;
  int tile_;  // being filled
  int input_ = 0;
};

// Stages begin at multiples of 1024.
__device__ __forceinline__ std::byte* AlignedStages(std::byte* memory) {
  return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
}

// A block's shared memory: the warps' rings, rows of x, barriers, and what a kernel needs besides.
struct StreamMemory {
  std::byte* rings;
  std::byte* x;
  CopyBarrier* barriers;
  void* other;

  __device__ StreamMemory(std::byte* memory, const StreamChoice& choice, int x_rows, int inputs)
      : rings(AlignedStages(memory)),
        x(rings + choice.warps * choice.stages * kStreamTileBytes),
        barriers(reinterpret_cast<CopyBarrier*>(x + x_rows * StreamXBytes(inputs))),
        other(barriers + choice.warps * choice.stages) {}

  // The ring of this warp; without stages where it does not stream.
  __device__ WarpRing Ring(const StreamChoice& choice) const {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const bool streams = warp < choice.warps;
    const int first_stage = streams ? warp * choice.stages : 0;
    return {rings + first_stage * kStreamTileBytes, barriers + first_stage,
            streams ? choice.stages : 0};
  }
  // What MultiplySegment takes of row `row` of x.
  __device__ uint32_t RowOfX(int row, int inputs) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return SharedAddress(x) + row * static_cast<int>(StreamXBytes(inputs)) + lane / 8 * 16;
  }
};

// Rows of f32 as rows of bf16 in shared memory, by all threads of the block, whose loads go out
// several at a time. `inputs` are a multiple of 4.
__device__ __forceinline__ void RoundRowsToShared(const float* x, int64_t stride, int rows,
                                                  int inputs, std::byte* to) {
  constexpr int kAhead = 8;
  const int fours = inputs / 4;
  const int all = rows * fours;
  const int threads = static_cast<int>(blockDim.x);
  for (int begin = static_cast<int>(threadIdx.x); begin < all; begin += kAhead * threads) {
    float4 values[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = min(begin + i * threads, all - 1);
      values[i] = reinterpret_cast<const float4*>(x + at / fours * stride)[at % fours];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int at = begin + i * threads;
      if (at >= all) break;
      std::byte* row = to + at / fours * StreamXBytes(inputs);
      reinterpret_cast<uint2*>(row)[at % fours] = RoundedFour(values[i]);
    }
  }
}

static_assert(kStreamThreads == kRmsNormThreads);

// Rows of x, normed where kFours > 0, to where StreamMemory::RowOfX finds them.
template <int kFours>
__device__ __forceinline__ void BringRows(const float* x, int64_t stride, int rows, int inputs,
                                          const NormWeights<kFours>& weights, float eps,
                                          std::byte* to) {
  if constexpr (kFours == 0) {
    RoundRowsToShared(x, stride, rows, inputs, to);
  } else {
    NormRowsToShared<kFours>(x, stride, rows, inputs, weights, eps, to,
                             static_cast<int>(StreamXBytes(inputs)));
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_WEIGHT_STREAM_CUH_
