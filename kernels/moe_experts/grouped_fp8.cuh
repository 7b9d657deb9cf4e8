// Products of many rows with experts' weights in FP8 (e4m3), scaled by blocks: 128 inputs of a row of
// x have one scale, and so have 128 inputs of 128 weight rows. Sums of a block are formed on a
// warpgroup's matrix units and added up, scaled, in f32.
//
// A tile is 128 rows of x, 64 for each of two warpgroups, by 128 weight rows. A third warpgroup's
// first thread keeps kFp8Stages blocks of 128 inputs on the way.
//
// Invariant: an output is the sum over the blocks in order, whatever the tile.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_GROUPED_FP8_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_GROUPED_FP8_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/hopper.cuh"

namespace troupe {

inline constexpr int kFp8Consumers = 256;  // two warpgroups
inline constexpr int kFp8Threads = kFp8Consumers + 128;
inline constexpr int kFp8Rows = 128;     // of x, of a tile
inline constexpr int kFp8Weights = 128;  // weight rows of a tile
inline constexpr int kFp8Block = 128;    // inputs with one scale: rows of 128 bytes in a stage
inline constexpr int kFp8OperandBytes = 128 * kFp8Block;
inline constexpr int kFp8StageBytes = 2 * kFp8OperandBytes;
inline constexpr int kFp8Stages = 6;
inline constexpr int kFp8SharedBytes = kFp8Stages * kFp8StageBytes + 1024;

// Pointers are to device memory.
struct GroupedFp8 {
  const CUtensorMap* weights = nullptr;         // [experts]
  const float* const* weight_scales = nullptr;  // [experts]: [weight_rows / 128, blocks]
  const float* x_scales = nullptr;              // [rows, blocks]
  const int32_t* tile_group = nullptr;          // expert of a tile of rows
  const int32_t* tile_first = nullptr;          // its first row
  const int32_t* tile_rows = nullptr;           // how many
  const int32_t* tile_count = nullptr;          // [1]
  int inputs = 0;                               // a multiple of kFp8Block
  int weight_rows = 0;                          // a multiple of 128; with kGated of 256
  CudaBf16* out = nullptr;  // [rows, weight_rows]; with kGated [rows, weight_rows / 2]
  int64_t out_stride = 0;
  Activation activation;  // with kGated
};

struct Fp8Barriers {
  CopyBarrier full[kFp8Stages];
  CopyBarrier empty[kFp8Stages];
};

struct Fp8Cursor {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    stage = stage + 1 == kFp8Stages ? 0 : stage + 1;
    parity ^= stage == 0 ? 1 : 0;
  }
};

// sums (+)= a b, [64, 128] = [64, 32] [32, 128].
__device__ __forceinline__ void MultiplyFp8(float (&sums)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1;\n"
      "}\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]),
        "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]),
        "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]),
        "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]),
        "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]),
        "+f"(sums[30]), "+f"(sums[31]), "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]),
        "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), "+f"(sums[40]), "+f"(sums[41]),
        "+f"(sums[42]), "+f"(sums[43]), "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]),
        "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), "+f"(sums[52]), "+f"(sums[53]),
        "+f"(sums[54]), "+f"(sums[55]), "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]),
        "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

template <bool kGated>
__device__ __forceinline__ void BringFp8(const GroupedFp8& product, const CUtensorMap* x,
                                         std::byte* stages, Fp8Barriers& barriers) {
  Fp8Cursor cursor;
  const int of_weights = product.weight_rows / kFp8Weights;
  const int tiles = *product.tile_count * of_weights;
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const int of_rows = index / of_weights;
    const int of_w = index % of_weights;
    const CUtensorMap* weights = product.weights + product.tile_group[of_rows];
    const int first = product.tile_first[of_rows];
    for (int input = 0; input < product.inputs; input += kFp8Block) {
      CopyBarrier* full = barriers.full + cursor.stage;
      std::byte* to = stages + cursor.stage * kFp8StageBytes;
      WaitFor(barriers.empty + cursor.stage, cursor.parity ^ 1);
      ArriveExpecting(full, kFp8StageBytes);
      CopyTensor2(to, x, input, first, full);
      // Outputs of the gate, then the same ones of `up`; or neighbours.
      CopyTensor3(to + kFp8OperandBytes, weights, input,
                  of_w * (kGated ? kFp8Weights / 2 : kFp8Weights), 0, full);
      cursor.Advance();
    }
  }
}

template <bool kGated>
__device__ __forceinline__ void StoreFp8(const GroupedFp8& product, int first, int rows, int of_w,
                                         const float (&sums)[64]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + lane / 4;
    if (row >= rows) continue;
    CudaBf16* to = product.out + (first + row) * product.out_stride;
    if constexpr (kGated) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int output = of_w * (kFp8Weights / 2) + i * 8 + lane % 4 * 2;
        const int at = 4 * i + 2 * half;
        *reinterpret_cast<__nv_bfloat162*>(to + output) =
            __floats2bfloat162_rn(Activate(product.activation, sums[at], sums[at + 32]),
                                  Activate(product.activation, sums[at + 1], sums[at + 33]));
      }
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int output = of_w * kFp8Weights + i * 8 + lane % 4 * 2;
        const int at = 4 * i + 2 * half;
        *reinterpret_cast<__nv_bfloat162*>(to + output) =
            __floats2bfloat162_rn(sums[at], sums[at + 1]);
      }
    }
  }
}

template <bool kGated>
__device__ __forceinline__ void MultiplyFp8Tiles(const GroupedFp8& product, std::byte* stages,
                                                 Fp8Barriers& barriers) {
  Fp8Cursor cursor;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int blocks = product.inputs / kFp8Block;
  const int of_weights = product.weight_rows / kFp8Weights;
  const int tiles = *product.tile_count * of_weights;
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const int of_rows = index / of_weights;
    const int of_w = index % of_weights;
    const int first = product.tile_first[of_rows];
    const int rows = product.tile_rows[of_rows];
    const float* scales = product.weight_scales[product.tile_group[of_rows]];
    const float* scale_0 = scales + (kGated ? of_w / 2 : of_w) * blocks;
    const float* scale_1 = kGated ? scale_0 + of_weights / 2 * blocks : scale_0;
    const int row = warp * 16 + lane / 4;
    const float* x_0 = product.x_scales + static_cast<int64_t>(first + min(row, rows - 1)) * blocks;
    const float* x_1 =
        product.x_scales + static_cast<int64_t>(first + min(row + 8, rows - 1)) * blocks;
    float total[64] = {};
    for (int block = 0; block < blocks; ++block) {
      const float w_0 = scale_0[block];
      const float w_1 = scale_1[block];
      const float s_0 = x_0[block];
      const float s_1 = x_1[block];
      float sums[64];
      WaitFor(barriers.full + cursor.stage, cursor.parity);
      const uint32_t stage = SharedAddress(stages + cursor.stage * kFp8StageBytes);
      const uint64_t a = OperandDescriptor(stage + warpgroup * 64 * kFp8Block);
      const uint64_t b = OperandDescriptor(stage + kFp8OperandBytes);
      BeginProducts();
#pragma unroll
      for (int k = 0; k < kFp8Block / 32; ++k) {
        MultiplyFp8(sums, a + k * (32 >> 4), b + k * (32 >> 4), k > 0);
      }
      CommitProducts();
      WaitForProducts<0>();
      if (lane == 0) Arrive(barriers.empty + cursor.stage);
      cursor.Advance();
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float w = i < 8 ? w_0 : w_1;
        total[4 * i] = __fmaf_rn(sums[4 * i], s_0 * w, total[4 * i]);
        total[4 * i + 1] = __fmaf_rn(sums[4 * i + 1], s_0 * w, total[4 * i + 1]);
        total[4 * i + 2] = __fmaf_rn(sums[4 * i + 2], s_1 * w, total[4 * i + 2]);
        total[4 * i + 3] = __fmaf_rn(sums[4 * i + 3], s_1 * w, total[4 * i + 3]);
      }
    }
    StoreFp8<kGated>(product, first, rows, of_w, total);
  }
}

// Grid: as many blocks as there are multiprocessors. Dynamic shared memory: kFp8SharedBytes.
template <bool kGated>
__global__ void __launch_bounds__(kFp8Threads, 1)
    GroupedFp8Kernel(const __grid_constant__ CUtensorMap x, GroupedFp8 product) {
  extern __shared__ std::byte grouped_fp8_shared[];
  __shared__ Fp8Barriers barriers;
  auto* stages = reinterpret_cast<std::byte*>(
      (reinterpret_cast<uintptr_t>(grouped_fp8_shared) + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kFp8Stages; ++i) {
      InitBarrier(barriers.full + i, 1);
      InitBarrier(barriers.empty + i, kFp8Consumers / kWarpSize);
    }
    FenceBarriers();
  }
  __syncthreads();
  LetNextKernelBegin();
  WaitForEarlierKernels();
  if (threadIdx.x >= kFp8Consumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x == kFp8Consumers) BringFp8<kGated>(product, &x, stages, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    MultiplyFp8Tiles<kGated>(product, stages, barriers);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_GROUPED_FP8_CUH_
