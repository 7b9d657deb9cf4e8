// Device memory: what lives as long as a model, what lives for one operation, and what crosses
// between the caller and the device in a step.
//
// Thread model: the Ops' caller. Ownership: each class owns its memory; pieces of the arena keep
// their slab alive. Plain cudaMalloc and pinned host memory throughout, nothing managed.
// Invariant: once a step's needs have been seen, a step allocates nothing.
#ifndef TROUPE_KERNELS_CUDA_MEMORY_CUH_
#define TROUPE_KERNELS_CUDA_MEMORY_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/errors.h"

namespace troupe {

// Zeroed memory for weights, pages and activations. Small pieces share slabs.
class CudaArena {
 public:
  explicit CudaArena(cudaStream_t stream) : stream_(stream) {}

  // ResourceExhausted, naming what is wanted and what is free.
  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(int64_t bytes);

 private:
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateSlab(int64_t bytes);

  cudaStream_t stream_;
  std::shared_ptr<std::byte> slab_;  // being filled
  int64_t slab_used_ = 0;
};

// Temporary memory of one operation. Operations follow one another on one stream, so the next may
// reuse what the last one is still working on.
class CudaScratch {
 public:
  explicit CudaScratch(CudaErrors* errors) : errors_(errors) {}
  ~CudaScratch();

  // `count` elements, uninitialised, aligned to 256 bytes. Null, and the error noted, where memory
  // is short.
  template <class T>
  T* Take(int64_t count) {
    return static_cast<T*>(TakeBytes(count * static_cast<int64_t>(sizeof(T))));
  }

  void Reset();

  // While held, nothing that was handed out is freed: operations are being recorded.
  void Hold(bool held) { held_ = held; }
  // Grows whenever memory that was handed out has been freed.
  int64_t generation() const { return generation_; }

 private:
  struct Block {
    void* memory = nullptr;
    int64_t bytes = 0;
  };

  void* TakeBytes(int64_t bytes);
  void AddBlock(int64_t bytes);

  CudaErrors* errors_;
  std::vector<Block> blocks_;  // the last one is being filled
  int64_t used_ = 0;           // of the last block
  bool held_ = false;
  int64_t generation_ = 0;
};

// What one step stages for the device and fetches from it. Two steps take turns, so that a step can
// be prepared while the one before it runs.
class CudaTransfers {
 public:
  CudaTransfers(cudaStream_t stream, CudaErrors* errors) : stream_(stream), errors_(errors) {}
  ~CudaTransfers();

  // The next step begins; what was staged and fetched two steps ago may be overwritten.
  void BeginStep();

  // A copy of the caller's bytes at the device address that is returned, once Flush has been called
  // and the stream has come to it.
  const void* Stage(const void* from, int64_t bytes);
  // Copies to device memory that lives longer than the step; `from` may be used again at once.
  void Upload(void* to, const void* from, int64_t bytes);
  // Sends what was staged since the last call, in one copy.
  void Flush();
  // Where the caller may read device memory after the stream has come here.
  void* Fetch(const void* from, int64_t bytes);

  // Where this step's staged bytes lie on the device and how many they are: steps of which both are
  // the same, and which staged the same sizes in the same order, find them at the same addresses.
  // {null, 0} where there is no telling.
  std::pair<const void*, int64_t> StagedPlace() const;

 private:
  struct Region {
    std::byte* host = nullptr;    // pinned
    std::byte* device = nullptr;  // null in regions for fetching
    int64_t bytes = 0;
  };
  // A step's regions: mostly one, another when it is full.
  struct Pool {
    std::vector<Region> regions;
    int64_t used = 0;  // of the last region
    int64_t sent = 0;  // likewise
  };
  struct Turn {
    Pool up;
    Pool down;
    cudaEvent_t done = nullptr;
  };

  // A place for `bytes` in the pool's last region; false, and the error noted, where memory is
  // short.
  bool Reserve(Pool& pool, int64_t bytes, bool on_device);
  void FreeRegions(Pool& pool, size_t keep);

  cudaStream_t stream_;
  CudaErrors* errors_;
  Turn turns_[2];
  int turn_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_MEMORY_CUH_
