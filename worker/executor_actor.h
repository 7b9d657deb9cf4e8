// Runs the step plans of one session after another on a rank.
//
// Its handler computes, so it blocks for as long as a step takes: it wants an executor with one
// thread of its own. Plans queue in the mailbox; WorkerService bounds them.
//
// A session that assigns a rank makes the worker that rank first, which may take as long as loading
// a model does.
//
// Thread model: an actor. Ownership: borrows rank and cache client, which outlive it; shares the
// session's outlet. Invariants: each plan of the session is answered by one result, in order, or
// the session ends with the reason; no sequence outlives its session.
#ifndef TROUPE_WORKER_EXECUTOR_ACTOR_H_
#define TROUPE_WORKER_EXECUTOR_ACTOR_H_

#include <memory>
#include <optional>

#include "base/actor.h"
#include "worker/block_transfers.h"
#include "worker/messages.h"
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

  void OnStart() override;
  void Handle(ExecutorMessage message) override;
  void OnStop(const absl::Status& reason) override;

  void On(OpenSession message);
  void On(const RunPlan& message);
  void On(const CloseSession& message);
  void On(RetireMaps message);
  void On(LoadEnded message);
  void On(const StoreEnded& message);

  // Engine and transfers on the rank that is there.
  void TakeRank();
  // Becomes the rank that the session assigns, and says so.
  absl::Status Become(const OpenSession& message);
  absl::StatusOr<v1::StepResult> Run(const RunPlan& message);
  // Frees what the session has and tells its other end why.
  void EndSession(const absl::Status& status);

  const BlockTransfers::Config config_;
  RankMember* const member_;
  CacheClient* const cache_;
  std::optional<StepEngine> engine_;  // where there is a rank, as is the next
  std::optional<BlockTransfers> transfers_;
  std::optional<Session> session_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_EXECUTOR_ACTOR_H_
