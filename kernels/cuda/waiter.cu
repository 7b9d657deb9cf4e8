#include <utility>

#include "kernels/cuda/context.cuh"
#include "kernels/cuda/waiter.cuh"

namespace troupe {

CudaWaiter::~CudaWaiter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  for (const cudaEvent_t event : unused_) cudaEventDestroy(event);
}

void CudaWaiter::WhenDone(cudaStream_t stream, absl::AnyInvocable<void()> done,
                          CudaErrors& errors) {
  Wait wait;
  wait.done = std::move(done);
  {
    std::lock_guard lock(mutex_);
    if (!unused_.empty()) {
      wait.event = unused_.back();
      unused_.pop_back();
    }
  }
  if (wait.event == nullptr) {
    CudaOk(cudaEventCreateWithFlags(&wait.event, cudaEventDisableTiming), "event", errors);
  }
  CudaOk(cudaEventRecord(wait.event, stream), "event", errors);
  {
    std::lock_guard lock(mutex_);
    waits_.push_back(std::move(wait));
  }
  changed_.notify_one();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void CudaWaiter::Run() {
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waits_.empty(); });
    if (waits_.empty()) return;
    Wait wait = std::move(waits_.front());
    waits_.pop_front();
    lock.unlock();
    cudaEventSynchronize(wait.event);
    wait.done();
    lock.lock();
    unused_.push_back(wait.event);
  }
}

}  // namespace troupe
