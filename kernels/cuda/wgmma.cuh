// Hopper's warpgroup products (wgmma) as attention needs them, the trade of registers between
// warpgroups, and the numbers that go in and out.
//
// Operands lie in shared memory as column blocks: 64 elements of bf16 (128 bytes) of each row, rows
// one after another, the 16-byte chunks of a row exchanged by the row's number (the 128-byte
// swizzle). A column block begins at a multiple of 1024 bytes. The same bytes serve as an operand
// whose rows are summed over and as one whose columns are: descriptors say which.
//
// Thread model: products are called by all 128 threads of a warpgroup. Invariant: between a product
// and the wait for it nothing touches its registers.
#ifndef TROUPE_KERNELS_CUDA_WGMMA_CUH_
#define TROUPE_KERNELS_CUDA_WGMMA_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/hopper.cuh"

namespace troupe {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kBlockColumns = 64;  // bf16 elements of a row in a column block
inline constexpr int kSwizzledRowBytes = 128;
inline constexpr int kSwizzleRows = 8;
inline constexpr int kColumnBlockBytes = 64 * kSwizzledRowBytes;  // of 64 rows

// Where the 16-byte chunk `chunk` (of 8) of a row lies in its column block.
__device__ __forceinline__ int SwizzledOffset(int row, int chunk) {
  return row * kSwizzledRowBytes + ((chunk ^ (row % kSwizzleRows)) << 4);
}

// An operand whose columns are summed over: 64 rows or more, 8 at a time.
__device__ __forceinline__ uint64_t ColumnDescriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kRowsStep = uint64_t{kSwizzleRows * kSwizzledRowBytes >> 4} << 32;
  return kSwizzle128 | kRowsStep | uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}

// An operand whose rows are summed over; its column blocks lie `block_bytes` apart.
__device__ __forceinline__ uint64_t RowDescriptor(uint32_t address, uint32_t block_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kRowsStep = uint64_t{kSwizzleRows * kSwizzledRowBytes >> 4} << 32;
  return kSwizzle128 | kRowsStep | uint64_t{block_bytes >> 4} << 16 | (address & 0x3ffff) >> 4;
}

// Keeps the compiler from moving uses of sums across a wait.
template <int kCount>
__device__ __forceinline__ void PinSums(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// What generic stores wrote to shared memory is visible to products, once the writers' barrier is
// passed.
__device__ __forceinline__ void FenceForProducts() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

#define TROUPE_SUMS8(s, i)                                                            \
  "+f"(s[i]), "+f"(s[(i) + 1]), "+f"(s[(i) + 2]), "+f"(s[(i) + 3]), "+f"(s[(i) + 4]), \
      "+f"(s[(i) + 5]), "+f"(s[(i) + 6]), "+f"(s[(i) + 7])

// ---- Products: sums = (add ? sums : 0) + a b, in f32. Of the 64 rows, a thread has rows 16 w + l
// / 4
// ---- and 8 further (w its warp in the warpgroup, l its lane): sums[4 j + 2 r + c] is column
// ---- 8 j + 2 (l % 4) + c of its row r. Sums as a bf16 operand in registers have that order too.

// 64 rows times 64 rows, both in shared memory, over 16 columns of both.
__device__ __forceinline__ void MultiplyColumns(float (&sums)[32], uint64_t a, uint64_t b,
                                                bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, 0, 0;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16), TROUPE_SUMS8(sums, 24)
      : "l"(a), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows of bf16 pairs in registers times 64 rows in shared memory, over 16 columns of both.
__device__ __forceinline__ void MultiplyColumns(float (&sums)[32], const uint32_t (&a)[4],
                                                uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16), TROUPE_SUMS8(sums, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows of bf16 pairs in registers times 64 columns of 16 rows in shared memory.
__device__ __forceinline__ void MultiplyRows(float (&sums)[32], const uint32_t (&a)[4], uint64_t b,
                                             bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16), TROUPE_SUMS8(sums, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows of bf16 pairs in registers times 128 columns of 16 rows in shared memory.
__device__ __forceinline__ void MultiplyRows(float (&sums)[64], const uint32_t (&a)[4], uint64_t b,
                                             bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16),
        TROUPE_SUMS8(sums, 24), TROUPE_SUMS8(sums, 32), TROUPE_SUMS8(sums, 40),
        TROUPE_SUMS8(sums, 48), TROUPE_SUMS8(sums, 56)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows of bf16 pairs in registers times 192 columns of 16 rows in shared memory.
__device__ __forceinline__ void MultiplyRows(float (&sums)[96], const uint32_t (&a)[4], uint64_t b,
                                             bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %101, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
      "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
      "%87, %88, %89, %90, %91, %92, %93, %94, %95}, "
      "{%96, %97, %98, %99}, %100, p, 1, 1, 1;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16),
        TROUPE_SUMS8(sums, 24), TROUPE_SUMS8(sums, 32), TROUPE_SUMS8(sums, 40),
        TROUPE_SUMS8(sums, 48), TROUPE_SUMS8(sums, 56), TROUPE_SUMS8(sums, 64),
        TROUPE_SUMS8(sums, 72), TROUPE_SUMS8(sums, 80), TROUPE_SUMS8(sums, 88)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows of bf16 pairs in registers times 256 columns of 16 rows in shared memory.
__device__ __forceinline__ void MultiplyRows(float (&sums)[128], const uint32_t (&a)[4], uint64_t b,
                                             bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
      "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
      "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, "
      "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "
      "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "{%128, %129, %130, %131}, %132, p, 1, 1, 1;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16),
        TROUPE_SUMS8(sums, 24), TROUPE_SUMS8(sums, 32), TROUPE_SUMS8(sums, 40),
        TROUPE_SUMS8(sums, 48), TROUPE_SUMS8(sums, 56), TROUPE_SUMS8(sums, 64),
        TROUPE_SUMS8(sums, 72), TROUPE_SUMS8(sums, 80), TROUPE_SUMS8(sums, 88),
        TROUPE_SUMS8(sums, 96), TROUPE_SUMS8(sums, 104), TROUPE_SUMS8(sums, 112),
        TROUPE_SUMS8(sums, 120)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add ? 1 : 0));
}

// 64 rows in shared memory times 256 columns of 16 rows there.
__device__ __forceinline__ void MultiplyRows(float (&sums)[128], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "
      "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, "
      "%87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, "
      "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "
      "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, p, 1, 1, 0, 1;\n}\n"
      : TROUPE_SUMS8(sums, 0), TROUPE_SUMS8(sums, 8), TROUPE_SUMS8(sums, 16),
        TROUPE_SUMS8(sums, 24), TROUPE_SUMS8(sums, 32), TROUPE_SUMS8(sums, 40),
        TROUPE_SUMS8(sums, 48), TROUPE_SUMS8(sums, 56), TROUPE_SUMS8(sums, 64),
        TROUPE_SUMS8(sums, 72), TROUPE_SUMS8(sums, 80), TROUPE_SUMS8(sums, 88),
        TROUPE_SUMS8(sums, 96), TROUPE_SUMS8(sums, 104), TROUPE_SUMS8(sums, 112),
        TROUPE_SUMS8(sums, 120)
      : "l"(a), "l"(b), "r"(add ? 1 : 0));
}

#undef TROUPE_SUMS8

// Whether the phase of this parity has ended.
__device__ __forceinline__ bool PhaseEnded(uint64_t* barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile(
      "{\n.reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n}\n"
      : "=r"(ended)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return ended != 0;
}
// A barrier of one warpgroup; `number` is not 0, which __syncthreads has.
__device__ __forceinline__ void SyncWarpgroup(int number) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(number), "n"(kWarpgroupThreads) : "memory");
}

// 2 to the power of x, to 2 units of the last place; 0 for -inf and where it would be denormal.
__device__ __forceinline__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

// Two numbers as bf16, the first one in the low half.
__device__ __forceinline__ uint32_t PackPair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// Takes or gives up registers: as many a thread from now on, a multiple of 8.
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GiveUpRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_WGMMA_CUH_
