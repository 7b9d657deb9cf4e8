#include "worker/cuda_queue_progress.h"

#include <cuda_runtime.h>

#include "absl/time/clock.h"

namespace troupe {

CudaQueueProgress::CudaQueueProgress(CUstream_st* stream) : stream_(stream) {
  for (cudaEvent_t& event : events_) cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
}

CudaQueueProgress::~CudaQueueProgress() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
}

void CudaQueueProgress::Mark() {
  cudaStreamCaptureStatus recording = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream_, &recording) != cudaSuccess ||
      recording != cudaStreamCaptureStatusNone) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const int place = pending_ ? 1 - watched_ : watched_;
  if (cudaEventRecord(events_.at(place), stream_) != cudaSuccess) return;
  more_ = pending_;
  if (pending_) return;
  pending_ = true;
  since_ = absl::Now();
}

absl::Duration CudaQueueProgress::StandsFor() {
  const std::lock_guard lock(mutex_);
  if (!pending_) return absl::ZeroDuration();
  if (cudaEventQuery(events_.at(watched_)) == cudaErrorNotReady) return absl::Now() - since_;
  if (more_) watched_ = 1 - watched_;
  pending_ = more_;
  more_ = false;
  since_ = absl::Now();
  return absl::ZeroDuration();
}

}  // namespace troupe
