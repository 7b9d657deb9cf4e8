// Tells when a stream has come to where it was asked.
//
// Thread model: WhenDone by one caller at a time; what it is given runs on the waiter's thread, in
// the order of the calls. Ownership: owns the thread, which ends, all calls made, with it.
#ifndef TROUPE_KERNELS_CUDA_WAITER_CUH_
#define TROUPE_KERNELS_CUDA_WAITER_CUH_

#include <cuda_runtime.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "kernels/cuda/errors.h"

namespace troupe {

class CudaWaiter {
 public:
  explicit CudaWaiter(int device) : device_(device) {}
  CudaWaiter(const CudaWaiter&) = delete;
  CudaWaiter& operator=(const CudaWaiter&) = delete;
  ~CudaWaiter();

  // Calls `done` also where the device fails on the way: the caller asks for its status.
  void WhenDone(cudaStream_t stream, absl::AnyInvocable<void()> done, CudaErrors& errors);

 private:
  struct Wait {
    cudaEvent_t event = nullptr;
    absl::AnyInvocable<void()> done;
  };

  void Run();

  int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Wait> waits_;           // guarded by mutex_, as are the next two
  std::vector<cudaEvent_t> unused_;  // events
  bool stopping_ = false;
  std::thread thread_;  // since the first call
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_CUDA_WAITER_CUH_
