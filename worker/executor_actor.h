// Runs the step plans of one session after another on a rank.
//
// Where the device runs on its own, plans are launched as they come, up to two ahead, and a step's
// result is sent when the device says that it has come to its end; on other devices the handler
// computes. Either way it may block for as long as a step takes: it wants an executor with one
// thread of its own. Plans queue in the mailbox; WorkerService bounds them.
//
// A session that assigns a rank makes the worker that rank first, which may take as long as loading
// a model does.
//
// Thread model: an actor. Ownership: borrows rank and cache client, which outlive it; shares the
// session's outlet. Invariants: each plan of the session is answered by one result, in order, or
// the session ends with the reason, all plans before being answered; no sequence outlives its
// session.
#ifndef TROUPE_WORKER_EXECUTOR_ACTOR_H_
#define TROUPE_WORKER_EXECUTOR_ACTOR_H_

#include <deque>
#include <memory>
#include <optional>

#include "base/actor.h"
#include "worker/block_transfers.h"
#include "worker/messages.h"
#include "worker/page_mover.h"
#include "worker/rank_member.h"
#include "worker/step_engine.h"

namespace troupe {

class ExecutorActor final : public Actor<ExecutorMessage> {
 public:
  // `cache` may be null.
  ExecutorActor(const BlockTransfers::Config& transfers, RankMember* member, CacheClient* cache);

 private:
  struct Session {
    uint64_t epoch = 0;
    uint64_t last_step = 0;
    std::shared_ptr<SessionOutlet> outlet;
  };
  // A step that was launched and not finished.
  struct UnderWay {
    StepEngine::Launched launched;
    v1::StepResult result;
  };

  void OnStart() override;
  void Handle(ExecutorMessage message) override;
  void OnStop(const absl::Status& reason) override;

  void On(const OpenSession& message);
  void On(const RunPlan& message);
  void On(const CloseSession& message);
  void On(const StepEnded& message);
  void On(RetireMaps message);
  void On(const FillsEnded& message);
  void On(LoadEnded message);
  void On(const StoreEnded& message);

  // Engine, transfers and mover on the rank that is there, and their end, before it may go.
  void TakeRank();
  void LeaveRank();
  // Becomes the rank that the session assigns, and says so.
  absl::Status Become(const OpenSession& message);
  absl::Status Launch(const RunPlan& message);
  // Sends the result of the oldest step under way, the device having come to its end.
  absl::Status FinishOldest();
  // Waits for the device and sends the results of all steps under way.
  absl::Status FinishAll();
  // Ends the session for what another rank did, and the process where the device has failed.
  void EndForFailure(const absl::Status& failure);
  // Frees what the session has and tells its other end why.
  void EndSession(const absl::Status& status);

  const BlockTransfers::Config config_;
  RankMember* const member_;
  CacheClient* const cache_;
  std::optional<StepEngine> engine_;  // where there is a rank, as is the next
  std::optional<BlockTransfers> transfers_;
  std::optional<PageMover> mover_;
  std::optional<Session> session_;
  std::deque<UnderWay> under_way_;  // of the session, oldest first
};

}  // namespace troupe

#endif  // TROUPE_WORKER_EXECUTOR_ACTOR_H_
