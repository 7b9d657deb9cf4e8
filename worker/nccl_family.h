// NCCL's library, and what a communicator shares with all that were split from it: they are watched
// together and fail together.
//
// Thread model: Join, Split, Run and progress.Mark by the communicators' thread; the rest is
// thread-safe. Ownership: owns NCCL's communicators, and a thread that watches. Invariants: once
// aborted, nothing is called on a communicator again.
#ifndef TROUPE_WORKER_NCCL_FAMILY_H_
#define TROUPE_WORKER_NCCL_FAMILY_H_

#include <nccl.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "worker/cuda_queue_progress.h"
#include "worker/failure_latch.h"
#include "worker/nccl_communicator.h"

namespace troupe {

// What is used of the library.
struct Nccl {
  decltype(&::ncclGetUniqueId) GetUniqueId;
  decltype(&::ncclCommInitRankConfig) CommInitRankConfig;
  decltype(&::ncclCommSplit) CommSplit;
  decltype(&::ncclCommGetAsyncError) CommGetAsyncError;
  decltype(&::ncclCommAbort) CommAbort;
  decltype(&::ncclGetErrorString) GetErrorString;
  decltype(&::ncclGroupStart) GroupStart;
  decltype(&::ncclGroupEnd) GroupEnd;
  decltype(&::ncclSend) Send;
  decltype(&::ncclRecv) Recv;
  decltype(&::ncclAllGather) AllGather;

  // Opens the library. FailedPrecondition: it is not there, or lacks something.
  static absl::StatusOr<Nccl> Load();
};

class NcclFamily {
 public:
  // The queue's device must be the thread's.
  NcclFamily(const Nccl& library, cudaStream_t queue, const NcclOptions& how);
  ~NcclFamily();
  NcclFamily(const NcclFamily&) = delete;
  NcclFamily& operator=(const NcclFamily&) = delete;

  // The communicator of all ranks, or of those that give the same colour, ordered by `key`. Null:
  // the latch says why.
  ncclComm_t Join(const ncclUniqueId& id);
  ncclComm_t Split(ncclComm_t comm, int colour, int key);

  // Runs `call` on `comm` and waits until NCCL has taken it. Whatever fails trips the latch.
  template <class Call>
  void Run(ncclComm_t comm, const Call& call) {
    if (latch.tripped()) return;
    ncclResult_t result;
    {
      const std::lock_guard lock(mutex_);
      if (aborted_) return;
      result = call();
    }
    Settle(comm, result, options.timeout);
    progress.Mark();
  }

  const Nccl nccl;
  const cudaStream_t stream;
  const NcclOptions options;
  FailureLatch latch;
  CudaQueueProgress progress;

 private:
  // Where NCCL writes a communicator, now or from a thread of its own later.
  ncclComm_t* NewSlot();
  // Until `comm` is no longer in the middle of a call, which answered `result`.
  void Settle(ncclComm_t comm, ncclResult_t result, absl::Duration limit);
  void Watch();
  void CheckErrors();
  void CheckProgress();
  void AbortAll();
  void Fail(ncclResult_t result);

  std::mutex mutex_;
  std::condition_variable stopped_;
  // All below are guarded by mutex_.
  bool stop_ = false;
  bool aborted_ = false;
  std::deque<ncclComm_t> comms_;  // null: not there yet; elements stay where they are
  std::thread watcher_;           // last: it uses all of the above
};

}  // namespace troupe

#endif  // TROUPE_WORKER_NCCL_FAMILY_H_
