// Hopper's own instructions that kernels here use, as functions: transaction barriers, bulk and
// tensor copies, matrix products of a warpgroup, and launches that overlap.
//
// Names and semantics: PTX ISA, "mbarrier", "cp.async.bulk", "wgmma", "griddepcontrol".
#ifndef TROUPE_KERNELS_CUDA_HOPPER_CUH_
#define TROUPE_KERNELS_CUDA_HOPPER_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/math.cuh"

namespace troupe {

// A barrier in shared memory that also counts the bytes of copies.
using CopyBarrier = uint64_t;

__device__ __forceinline__ void InitBarrier(CopyBarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes initialised barriers known to the copy engine.
__device__ __forceinline__ void FenceBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
__device__ __forceinline__ void Arrive(CopyBarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(SharedAddress(barrier))
               : "memory");
}
// Arrives, and expects that many bytes of copies in this phase.
__device__ __forceinline__ void ArriveExpecting(CopyBarrier* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the end of the phase of this parity.
__device__ __forceinline__ void WaitFor(CopyBarrier* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Copies `bytes`, a multiple of 16 at aligned places, to shared memory.
__device__ __forceinline__ void CopyBulk(void* shared, const void* global, int bytes,
                                         CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// Copies a map's box at the coordinates, inner one first.
__device__ __forceinline__ void CopyTensor2(void* shared, const CUtensorMap* map, int c0, int c1,
                                            CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(c0), "r"(c1), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void CopyTensor3(void* shared, const CUtensorMap* map, int c0, int c1,
                                            int c2, CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void CopyTensor4(void* shared, const CUtensorMap* map, int c0, int c1,
                                            int c2, int c3, CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(SharedAddress(barrier))
      : "memory");
}
__device__ __forceinline__ void CopyTensor5(void* shared, const CUtensorMap* map, int c0, int c1,
                                            int c2, int c3, int c4, CopyBarrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5, %6}], [%7];\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "r"(SharedAddress(barrier))
      : "memory");
}

// Asks for a map before it is used.
__device__ __forceinline__ void PrefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

// Ends a wait that began with the launch: what earlier kernels of the stream wrote may be read.
// Nothing to wait for in a launch that does not overlap them.
__device__ __forceinline__ void WaitForEarlierKernels() {
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
}
// Lets the stream's next kernel begin, where it was launched to overlap this one.
__device__ __forceinline__ void LetNextKernelBegin() {
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
}

// ---- Clusters of blocks ----

__device__ __forceinline__ int RankInCluster() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
// All threads of a cluster arrive before any of them has waited; what they wrote to each other's
// shared memory may be read then.
__device__ __forceinline__ void ArriveInCluster() {
  asm volatile("barrier.cluster.arrive.release;\n" ::: "memory");
}
__device__ __forceinline__ void WaitForCluster() {
  asm volatile("barrier.cluster.wait.acquire;\n" ::: "memory");
}
// Stores a number where `shared` lies in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ void StoreInCluster(float* shared, int rank, float value) {
  asm volatile(
      "{\n"
      ".reg .b32 place;\n"
      "mapa.shared::cluster.u32 place, %0, %1;\n"
      "st.shared::cluster.f32 [place], %2;\n"
      "}\n" ::"r"(SharedAddress(shared)),
      "r"(rank), "f"(value)
      : "memory");
}

// Four values rounded to bf16.
__device__ __forceinline__ uint2 RoundedFour(const float4& four) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(four.x, four.y);
  const __nv_bfloat162 high = __floats2bfloat162_rn(four.z, four.w);
  return {*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)};
}

// ---- Products of a warpgroup: operands in shared memory, rows of 128 bytes, swizzled ----

// Of an operand's tile that begins at an address that is a multiple of 1024.
__device__ __forceinline__ uint64_t OperandDescriptor(uint32_t shared_address) {
  constexpr uint64_t kGroupOfRows = 1024 >> 4;  // bytes from 8 rows to the next 8
  constexpr uint64_t kSwizzle128 = 1;
  return static_cast<uint64_t>((shared_address & 0x3ffff) >> 4) | (uint64_t{1} << 16) |
         (kGroupOfRows << 32) | (kSwizzle128 << 62);
}

__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_HOPPER_CUH_
