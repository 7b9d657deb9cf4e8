// How long a GPU's queue has not come on.
//
// It goes by events: to query a stream spoils what is being recorded in it.
//
// Thread model: Mark by the thread that fills the queue; StandsFor by any. Ownership: owns two
// events; borrows the stream. Invariant: while what was marked last is not over, something is
// watched that is marked and not over.
#ifndef TROUPE_WORKER_CUDA_QUEUE_PROGRESS_H_
#define TROUPE_WORKER_CUDA_QUEUE_PROGRESS_H_

#include <array>
#include <mutex>

#include "absl/time/time.h"

// CUDA's names of what it calls cudaStream_t and cudaEvent_t.
struct CUevent_st;
struct CUstream_st;

namespace troupe {

class CudaQueueProgress {
 public:
  // The stream's device must be the thread's.
  explicit CudaQueueProgress(CUstream_st* stream);
  ~CudaQueueProgress();
  CudaQueueProgress(const CudaQueueProgress&) = delete;
  CudaQueueProgress& operator=(const CudaQueueProgress&) = delete;

  // Watches what is in the queue by now; does nothing while the queue is being recorded.
  void Mark();

  // Since the queue was last seen to come on; zero while all that was marked is over.
  absl::Duration StandsFor();

 private:
  CUstream_st* const stream_;
  std::mutex mutex_;
  // All below are guarded by mutex_.
  std::array<CUevent_st*, 2> events_ = {};
  int watched_ = 0;       // of events_
  bool pending_ = false;  // the watched event has been recorded
  bool more_ = false;     // the other one too, later
  absl::Time since_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_CUDA_QUEUE_PROGRESS_H_
