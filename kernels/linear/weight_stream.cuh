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
#include "kernels/linear/linear_matrix_units.cuh"
#include "kernels/linear/stream_choice.h"

namespace troupe {

// One warp's stages of kRows rows. The lane of a row copies it.
template <int kRows>
class WarpRing {
 public:
  // `barriers` has room for every stage.
  __device__ WarpRing(std::byte* memory, CopyBarrier* barriers, int stages)
      : memory_(memory), barriers_(barriers), stages_(stages) {
    for (int i = Lane(); i < stages; i += kWarpSize) InitBarrier(barriers + i, 1);
    FenceBarriers();
    __syncwarp();
  }

  // Opens the next free stage for `bytes` in all.
  __device__ void BeginFill(int bytes) {
    if (Lane() == 0) ArriveExpecting(barriers_ + fill_, bytes);
    __syncwarp();
  }
  // Called by one lane for each row of the stage that BeginFill opened.
  __device__ void CopyRow(int row, const CudaBf16* from, int bytes) {
    CopyBulk(memory_ + (fill_ * kRows + row) * kStreamRowBytes, from, bytes, barriers_ + fill_);
  }
  __device__ void EndFill() { fill_ = fill_ + 1 == stages_ ? 0 : fill_ + 1; }

  // Waits for the oldest stage; its rows stay until Release.
  __device__ uint32_t Await() {
    WaitFor(barriers_ + use_, parity_);
    return SharedAddress(memory_ + use_ * kRows * kStreamRowBytes);
  }
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

// Adds `inputs` products to a tile's sums. `weights`: the stage's row that lane % 16 has, at the
// chunk that lane / 16 has. x[n]: row lane % 8 of column tile n, at the chunk that lane / 8 has.
template <int kColumnTiles>
__device__ __forceinline__ void MultiplySegment(uint32_t weights, const uint32_t (&x)[kColumnTiles],
                                                int inputs, float (&sums)[kColumnTiles][4]) {
#pragma unroll 4
  for (int i = 0; i < inputs; i += 2 * kStreamUnit) {
    uint32_t w[2][4];
    LoadMatricesAt(w[0], weights + i * 2);
    LoadMatricesAt(w[1], weights + (i + kStreamUnit) * 2);
    const bool both = i + kStreamUnit < inputs;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      uint32_t columns[4];
      LoadMatricesAt(columns, x[n] + i * 2);
      MultiplyAdd(sums[n], w[0], columns[0], columns[1]);
      if (both) MultiplyAdd(sums[n], w[1], columns[2], columns[3]);
    }
  }
}

// One warp's tiles of weights, streamed one after another: `first`, `first` + `step`, ... below
// `count`. row_of(tile, row) is where a row of a tile begins.
template <class RowOf>
class TileStream {
 public:
  __device__ TileStream(WarpRing<kStreamRows> ring, int first, int step, int count, int inputs,
                        const RowOf& row_of)
      : ring_(ring), step_(step), count_(count), inputs_(inputs), row_of_(row_of), tile_(first) {}

  __device__ void FillStages() {
    for (int i = 0; i < ring_.stages(); ++i) Fill();
  }

  // The next tile's products with rows of x in shared memory; x_at as MultiplySegment takes it.
  template <int kColumnTiles>
  __device__ void Multiply(const uint32_t (&x_at)[kColumnTiles], float (&sums)[kColumnTiles][4]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const uint32_t weights_at = lane % 16 * kStreamRowBytes + lane / 16 * 16;
    for (int input = 0; input < inputs_; input += kStreamInputs) {
      uint32_t x[kColumnTiles];
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) x[n] = x_at[n] + input * 2;
      MultiplySegment<kColumnTiles>(ring_.Await() + weights_at, x,
                                    min(kStreamInputs, inputs_ - input), sums);
      ring_.Release();
      Fill();
    }
  }

 private:
  __device__ void Fill() {
    if (tile_ >= count_) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int inputs = min(kStreamInputs, inputs_ - input_);
    ring_.BeginFill(kStreamRows * inputs * 2);
    if (lane < kStreamRows) ring_.CopyRow(lane, row_of_(tile_, lane) + input_, inputs * 2);
    ring_.EndFill();
    input_ += kStreamInputs;
    if (input_ < inputs_) return;
    input_ = 0;
    tile_ += step_;
  }

  WarpRing<kStreamRows> ring_;
  int step_;
  int count_;
  int inputs_;
  RowOf row_of_;
  int tile_;  // being filled
  int input_ = 0;
};

// A block's shared memory: the warps' rings, rows of x, barriers, and what a kernel needs besides.
struct StreamMemory {
  std::byte* rings;
  std::byte* x;
  CopyBarrier* barriers;
  void* other;

  __device__ StreamMemory(std::byte* memory, const StreamChoice& choice, int x_rows, int inputs)
      : rings(memory),
        x(rings + choice.warps * choice.stages * kStreamRows * kStreamRowBytes),
        barriers(reinterpret_cast<CopyBarrier*>(x + x_rows * StreamXBytes(inputs))),
        other(barriers + choice.warps * choice.stages) {}

  // The ring of this warp; without stages where it does not stream.
  __device__ WarpRing<kStreamRows> Ring(const StreamChoice& choice) const {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const bool streams = warp < choice.warps;
    const int first_stage = streams ? warp * choice.stages : 0;
    return {rings + first_stage * kStreamRows * kStreamRowBytes, barriers + first_stage,
            streams ? choice.stages : 0};
  }
  // What MultiplySegment takes of row `row` of x.
  __device__ uint32_t RowOfX(int row, int inputs) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return SharedAddress(x) + row * static_cast<int>(StreamXBytes(inputs)) + lane / 8 * 16;
  }
};

// Rows of f32 as rows of bf16 in shared memory, by all threads of the block.
__device__ __forceinline__ void RoundRowsToShared(const float* x, int64_t stride, int rows,
                                                  int inputs, std::byte* to) {
  for (int row = 0; row < rows; ++row) {
    const auto* from = reinterpret_cast<const float4*>(x + row * stride);
    auto* to_row = reinterpret_cast<uint2*>(to + row * StreamXBytes(inputs));
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < inputs / 4; i += static_cast<int>(blockDim.x)) {
      to_row[i] = RoundedFour(from[i]);
    }
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_WEIGHT_STREAM_CUH_
