// The protocol of the worker's actors: one ExecutorActor, which runs plans on the device, and one
// RegistrarActor, which announces the worker to the coordinator.
#ifndef TROUPE_WORKER_MESSAGES_H_
#define TROUPE_WORKER_MESSAGES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/worker.pb.h"
#include "worker/session_meeting.h"

namespace troupe {

// The worker's end of one coordinator's stream, whatever carries it.
//
// Thread model: thread-safe, does not block.
class SessionOutlet {
 public:
  virtual ~SessionOutlet() = default;
  // ---- Of a rank that a session assigned, in this order
  // How far it is.
  virtual void Report(v1::Loading loading) = 0;
  // Its part of the next meeting.
  virtual void Contribute(std::string bytes) = 0;
  // It is the rank; the answer to Hello, but for the worker's name.
  virtual void Greet(v1::WorkerInfo info) = 0;
  // ---- Of every session
  // The result of the oldest plan that has none yet.
  virtual void Send(v1::StepResult result) = 0;
  // The last call: the session is over, OK where the coordinator asked for it.
  virtual void End(const absl::Status& status) = 0;
};

// ---- To the ExecutorActor
// A session begins; what is left of the one before it is dropped. From WorkerService, as a reply.
struct OpenSession {
  uint64_t epoch = 0;
  std::shared_ptr<SessionOutlet> outlet;
  // The rank to become first; absent: the worker is what it is, and Hello is answered.
  std::optional<v1::Assignment> assignment;
  std::shared_ptr<SessionMeeting> meeting;  // of an assignment
};
// The next plan of the session, answered through its outlet. From WorkerService.
struct RunPlan {
  uint64_t epoch = 0;
  v1::StepPlan plan;
  int64_t arrived_ns = 0;  // of the executor's monotonic clock
};
// The session ends with `status` once the plans before this have run; its sequences are freed. From
// WorkerService, as a reply. Sessions that are over are fine.
struct CloseSession {
  uint64_t epoch = 0;
  absl::Status status;
};
// The device has come to the end of the session's step. From the Ops' thread, once a step that it
// was handed.
struct StepEnded {
  uint64_t epoch = 0;
  uint64_t step = 0;
};
// What is here for other maps than that of `keep_epoch` is to go, the rank itself too where it is
// of another and has no session. From ShardService; `done` is called once, from the actor.
struct RetireMaps {
  uint64_t keep_epoch = 0;
  absl::AnyInvocable<void()> done;
};
// A page arrived from the cache service: null is a miss. From the cache client's callbacks, once a
// load.
struct LoadEnded {
  uint64_t epoch = 0;
  uint64_t id = 0;
  absl::StatusOr<std::optional<std::string>> bytes;
};
// The fills of the session's plans up to `step` are over. From a thread of SideCopies, once a plan
// that fills pages.
struct FillsEnded {
  uint64_t epoch = 0;
  uint64_t step = 0;
};
// A page was stored, or not. From the cache client's callbacks, once a store.
struct StoreEnded {
  uint64_t epoch = 0;
  uint64_t id = 0;
  int64_t bytes = 0;
  absl::Status status;
};

using ExecutorMessage = std::variant<OpenSession, RunPlan, CloseSession, StepEnded, RetireMaps,
                                     FillsEnded, LoadEnded, StoreEnded>;

// ---- To the RegistrarActor
// Time for the next call. From the actor to itself.
struct Announce {};
// The coordinator's answer, or why there is none. From the registration client, once a call.
struct Announced {
  absl::StatusOr<v1::RegisterWorkerReply> reply;
};

using RegistrarMessage = std::variant<Announce, Announced>;

}  // namespace troupe

#endif  // TROUPE_WORKER_MESSAGES_H_
