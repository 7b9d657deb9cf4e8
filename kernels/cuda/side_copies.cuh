// Side copies on CUDA: one stream a direction beside the one that operations run in.
//
// What is to be overwritten at once is first copied on the device, in the operations' stream, to a
// section of a buffer, and leaves from there. That takes a few microseconds where the way out takes
// hundreds; the operations' stream waits for the way out only when all sections are on it.
//
// Thread model: the Ops' caller. Ownership: owns streams, events and the buffer; borrows the
// operations' stream and the errors.
#ifndef TROUPE_KERNELS_CUDA_SIDE_COPIES_CUH_
#define TROUPE_KERNELS_CUDA_SIDE_COPIES_CUH_

#include <cuda_runtime.h>

#include <array>
#include <vector>

#include "kernels/cuda/errors.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/waiter.cuh"
#include "kernels/side_copies.h"

namespace troupe {

class CudaSideCopies final : public SideCopies {
 public:
  CudaSideCopies(int device, cudaStream_t operations, CudaErrors* errors);
  ~CudaSideCopies() override;
  CudaSideCopies(const CudaSideCopies&) = delete;
  CudaSideCopies& operator=(const CudaSideCopies&) = delete;

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(int64_t bytes) override;
  absl::Status Reserve(int64_t largest_bytes) override;
  void Out(absl::Span<const SideCopy> copies, Reuse reuse) override;
  void In(absl::Span<const SideCopy> copies) override;
  bool WhenDone(absl::AnyInvocable<void()> done) override;
  void Synchronize() override;

 private:
  static constexpr size_t kSections = 4;

  struct Section {
    std::byte* memory = nullptr;
    cudaEvent_t left = nullptr;  // everything in it has arrived at the host
  };

  bool Ok(cudaError_t error, const char* what);
  bool Use();
  // `then` goes on when `first` has come to where it is now.
  void Order(cudaStream_t first, cudaStream_t then, cudaEvent_t event);
  // Copies in one call: it takes a third of the time of one a page, and unlike a kernel that reads
  // or writes host memory it takes nothing from the operations (docs/performance.md).
  void Send(absl::Span<const SideCopy> copies, cudaMemcpyKind kind, cudaStream_t stream);
  // The first copies that a section takes, by way of it; how many they are.
  size_t SendThroughSection(absl::Span<const SideCopy> copies);

  const int device_;
  const cudaStream_t operations_;
  CudaErrors* const errors_;
  cudaStream_t out_ = nullptr;
  cudaStream_t in_ = nullptr;
  cudaEvent_t ordered_ = nullptr;      // the operations' stream before copies
  cudaEvent_t out_ordered_ = nullptr;  // the way out before the way in
  std::byte* buffer_ = nullptr;
  int64_t section_bytes_ = 0;
  std::array<Section, kSections> sections_;
  size_t next_section_ = 0;
  std::vector<void*> to_;  // of one call's copies
  std::vector<const void*> from_;
  std::vector<size_t> sizes_;
  CudaWaiter waiter_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_SIDE_COPIES_CUH_
