// Where the experts' weights lie, as kernels read it: made once for each list of experts.
//
// Thread model: the Ops' caller. Ownership: owns the tables on the device.
// Invariant: a table is compared with the list before each use, so that a list that has changed, or
// another at the same address, gets a table of its own.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TABLES_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TABLES_CUH_

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/memory.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

struct ExpertTable {
  // [experts] on the device, each.
  const void* const* gate_up = nullptr;
  const void* const* down = nullptr;
  const float* const* gate_up_bias = nullptr;
  const float* const* down_bias = nullptr;
};

class ExpertTables {
 public:
  ExpertTables(CudaArena* arena, cudaStream_t stream, CudaErrors* errors)
      : arena_(arena), stream_(stream), errors_(errors) {}

  // Empty, and the error noted, where device memory is short.
  ExpertTable Find(const ExpertWeights* experts, int count);

 private:
  struct Entry {
    std::vector<const void*> host;  // gate_up of every expert, then down, then the biases
    std::shared_ptr<std::byte> device;
  };

  CudaArena* arena_;
  cudaStream_t stream_;
  CudaErrors* errors_;
  std::map<const ExpertWeights*, Entry> entries_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_EXPERT_TABLES_CUH_
