// troupe.v1.Worker over gRPC: one session at a time, its plans handed to the ExecutorActor.
//
// A Hello with a higher epoch takes the place of the session that is there, which is how a
// coordinator gets past a connection that died without a word; one with the same or a lower epoch
// is refused.
//
// Thread model: thread-safe, as gRPC's callback API wants it; nothing blocks. Ownership: sessions
// keep themselves alive until gRPC is done with them; the service outlives the server it is
// registered with.
#ifndef TROUPE_WORKER_WORKER_SERVICE_H_
#define TROUPE_WORKER_WORKER_SERVICE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/statusor.h"
#include "base/actor.h"
#include "base/clock.h"
#include "base/executor.h"
#include "troupe/v1/worker.grpc.pb.h"
#include "worker/messages.h"
#include "worker/rank_member.h"

namespace troupe {

class WorkerService final : public v1::Worker::CallbackService {
 public:
  struct Config {
    int max_queued_plans = 8;  // of a session, that have no result yet
  };

  // `clock` is that of the actor's executor.
  WorkerService(const Config& config, ActorRef<ExecutorMessage> executor, const Clock* clock);

  // Takes sessions from now on, UNAVAILABLE before: those that assign a rank, which the executor
  // answers when it has become that; or those that do not, which `info` answers at once.
  void Open(v1::WorkerInfo info);
  void OpenForAssignments(const std::string& worker);

  // Lets shards be prepared on `member`, loading on `loader`, and its weights be read, on `sender`;
  // before Open. All outlive this.
  void AllowShards(RankMember* member, Executor* loader, Executor* sender);

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionReply>* Session(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::PrepareShardReply>* PrepareShard(
      grpc::CallbackServerContext* context, const v1::PrepareShardRequest* request) override;
  grpc::ServerUnaryReactor* RetireShard(grpc::CallbackServerContext* context,
                                        const v1::RetireShardRequest* request,
                                        v1::RetireShardReply* reply) override;

  grpc::ServerWriteReactor<v1::WeightChunk>* ReadWeights(
      grpc::CallbackServerContext* context, const v1::ReadWeightsRequest* request) override;

  // Refuses new sessions; ends the present one, UNAVAILABLE, once the plans it has sent have run.
  void BeginShutdown();

 private:
  class SessionCall;

  // What to answer Hello with; nothing: the executor will.
  absl::StatusOr<std::optional<v1::WorkerInfo>> Admit(const v1::Hello& hello,
                                                      const std::shared_ptr<SessionCall>& call);
  std::string Name();
  void Remove(const SessionCall* call);

  const Config config_;
  const ActorRef<ExecutorMessage> executor_;
  const Clock* const clock_;
  RankMember* member_ = nullptr;
  Executor* loader_ = nullptr;
  Executor* sender_ = nullptr;

  std::mutex mutex_;
  // All below are guarded by mutex_.
  std::optional<v1::WorkerInfo> info_;
  bool takes_assignments_ = false;
  std::shared_ptr<SessionCall> current_;
  uint64_t current_epoch_ = 0;
  bool shutting_down_ = false;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_WORKER_SERVICE_H_
