// Sections of operations kept as CUDA graphs.
//
// The first time that a key is seen its section simply runs: kernels are loaded, scratch memory and
// lists of pointers come to be, the library chooses. The second time it is recorded, and repeated
// from then on.
//
// Thread model: the Ops' caller. Ownership: owns the graphs; borrows what the Ops owns.
// Invariant: a graph runs only where the step's staged bytes, scratch memory and lists of pointers
// lie where they lay when it was recorded. Steps take turns with two places for staged bytes, so a
// key has a graph for each.
#ifndef TROUPE_KERNELS_CUDA_REPLAYS_CUH_
#define TROUPE_KERNELS_CUDA_REPLAYS_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <utility>

#include "kernels/cuda/errors.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/replays.h"

namespace troupe {

class CudaReplays final : public Replays {
 public:
  CudaReplays(int device, cudaStream_t stream, CudaScratch* scratch, CudaTransfers* transfers,
              CudaErrors* errors)
      : device_(device),
        stream_(stream),
        scratch_(scratch),
        transfers_(transfers),
        errors_(errors) {}
  CudaReplays(const CudaReplays&) = delete;
  CudaReplays& operator=(const CudaReplays&) = delete;
  ~CudaReplays() override;

  bool keeps() const override { return true; }
  bool Begin(const ReplayKey& key) override;
  void End() override;

 private:
  // The key, and where the step's bytes lie.
  using Place = std::pair<const void*, int64_t>;
  using FullKey = std::pair<ReplayKey, Place>;

  void Forget();

  int device_;
  cudaStream_t stream_;
  CudaScratch* scratch_;
  CudaTransfers* transfers_;
  CudaErrors* errors_;
  std::map<FullKey, cudaGraphExec_t> graphs_;  // null: seen once
  int64_t generation_ = 0;                     // of scratch memory, that the graphs name
  cudaGraphExec_t* recording_ = nullptr;       // the place of what is being recorded
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_REPLAYS_CUH_
