// Moves pages between a rank's device and host memory, beside the steps.
//
// A plan's spills leave before anything in the plan can write to their pages: a page that a fill of
// the same plan takes leaves from where it is, any other by way of the device's own copy of it. So
// steps do not wait for spills, and fills do not wait for steps after theirs; the end of a plan's
// fills comes as a message to the owner.
//
// Thread model: one owner, the ExecutorActor, whom a thread of SideCopies tells FillsEnded.
// Ownership: borrows pages and Ops, which outlive it. Invariants: results tell of each fill once,
// after it is over.
#ifndef TROUPE_WORKER_PAGE_MOVER_H_
#define TROUPE_WORKER_PAGE_MOVER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "base/actor.h"
#include "base/clock.h"
#include "kernels/ops.h"
#include "troupe/v1/worker.pb.h"
#include "worker/host_pages.h"
#include "worker/kv_pages.h"
#include "worker/messages.h"

namespace troupe {

// How a plan's pages move.
struct PageMoves {
  std::vector<SideCopy> out_at_once;  // to be overwritten by what the device does next
  std::vector<SideCopy> out_of_fill;  // to be overwritten by a fill alone
  std::vector<SideCopy> in;
  int64_t in_bytes = 0;
};

// A pure function. InvalidArgument, naming field, found and wanted, where the plan's columns differ
// in length or name pages that are not there; `host_pages` may be null: there are none.
absl::StatusOr<PageMoves> PlanMoves(const v1::StepPlan& plan, KvPages& pages,
                                    const HostPages* host_pages);

class PageMover {
 public:
  // `host_pages` and `copies` may be null: there are none, and plans that move any are refused.
  PageMover(KvPages* pages, const HostPages* host_pages, SideCopies* copies, const Clock* clock);

  // Waits for what is under way and forgets it: it belongs to a session that is over.
  void Reset(uint64_t epoch);

  // Starts what the plan moves. Before anything else of the plan. Errors as PlanMoves, or
  // FailedPrecondition: a fill's number is under way already.
  absl::Status Start(const v1::StepPlan& plan, const ActorRef<ExecutorMessage>& owner);

  void End(const FillsEnded& message);

  // Adds the fills that have ended since the last call.
  void Report(v1::StepResult& result);

 private:
  struct Fill {
    uint64_t id = 0;
    int64_t bytes = 0;
    int64_t start_ns = 0;
    uint64_t step = 0;
  };

  KvPages* const pages_;
  const HostPages* const host_pages_;
  SideCopies* const copies_;
  const Clock* const clock_;
  uint64_t epoch_ = 0;
  std::deque<Fill> under_way_;  // in the order of their steps
  std::vector<v1::TransferDone> ended_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_PAGE_MOVER_H_
