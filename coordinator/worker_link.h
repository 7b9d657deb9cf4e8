// The coordinator's end of one rank's session, whatever carries it: gRPC (worker_client.h), or a
// simulated worker in tests.
#ifndef TROUPE_COORDINATOR_WORKER_LINK_H_
#define TROUPE_COORDINATOR_WORKER_LINK_H_

#include <functional>
#include <memory>
#include <string>

#include "base/actor.h"
#include "coordinator/messages.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// Thread model: called by its SchedulerActor. It tells that actor RankLoading and RankContribution
// as they come, LinkUp, then StepDone for each plan in order, and LinkDown last, also when it could
// not connect. Destroying it ends the session.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;

  // Sends the next plan. Does not block; what cannot be sent shows as LinkDown.
  virtual void Send(v1::StepPlan plan) = 0;
  virtual void Send(v1::Meeting meeting) = 0;
};

// Starts a session with the worker at `address`, as the rank that `hello` assigns, else rank 0.
using WorkerLinkFactory = std::function<std::unique_ptr<WorkerLink>(
    const std::string& address, const v1::Hello& hello, ActorRef<SchedulerMessage> owner)>;

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_WORKER_LINK_H_
