// What a CUDA operation runs with: `void FooCuda(const FooParams&, const CudaContext&)` in
// kernels/foo/foo_cuda.h, defined in kernels/foo/foo_launch.cu.
//
// Thread model: one operation at a time uses a context. Launches go to `stream` and return at once.
// Ownership: the CudaOps owns everything that is referred to here.
// Invariant: a launch function allocates nothing but from `scratch`, and stops when that fails.
#ifndef TROUPE_KERNELS_CUDA_CONTEXT_CUH_
#define TROUPE_KERNELS_CUDA_CONTEXT_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/errors.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/tensor.h"

namespace troupe {

class CublasLt;
class PointerTables;

// How many blocks of a launch may count their arrivals at once.
inline constexpr int kArrivalCounters = 64;

struct CudaContext {
  cudaStream_t stream;
  int multiprocessors;
  CudaScratch& scratch;  // empty when an operation begins
  CublasLt* cublas;      // null: dense products by our own kernels
  PointerTables& pointer_tables;
  CudaErrors& errors;
  unsigned* arrivals;  // [kArrivalCounters] on the device, zero when a kernel begins and ends
};

// Takes note of a failed runtime call; true where it succeeded.
bool CudaOk(cudaError_t error, const char* what, CudaErrors& errors);

inline int64_t CeilDiv(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// Lets a kernel use more than the 48 KiB of shared memory that it may by default.
template <class Kernel>
void AllowSharedMemory(Kernel* kernel, int64_t bytes, CudaErrors& errors) {
  // 48 KiB need no leave, and kernels' static shared memory counts towards them: none has 24 KiB.
  constexpr int64_t kNeedsNoLeave = 24 << 10;
  if (bytes <= kNeedsNoLeave) return;
  CudaOk(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes)),
         "shared memory of a kernel", errors);
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_CONTEXT_CUH_
