// Lists of device pointers where kernels find them, such as those to every expert's weights: each
// is brought to the device once.
//
// Thread model: the Ops' caller. Ownership: owns the lists on the device.
// Invariant: a list is compared with what is asked for before each use, so that one that has
// changed, or another with the same key, gets a list of its own.
#ifndef TROUPE_KERNELS_CUDA_POINTER_TABLES_CUH_
#define TROUPE_KERNELS_CUDA_POINTER_TABLES_CUH_

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/memory.cuh"

namespace troupe {

class PointerTables {
 public:
  PointerTables(CudaArena* arena, cudaStream_t stream, CudaErrors* errors)
      : arena_(arena), stream_(stream), errors_(errors) {}

  // `key` is what the pointers were read from. Null, and the error noted, where device memory is
  // short.
  const void* const* Find(const void* key, std::vector<const void*> pointers);

 private:
  struct Entry {
    std::vector<const void*> host;
    std::shared_ptr<std::byte> device;
  };

  CudaArena* arena_;
  cudaStream_t stream_;
  CudaErrors* errors_;
  std::map<const void*, Entry> entries_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_POINTER_TABLES_CUH_
