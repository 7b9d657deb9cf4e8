#include "worker/shard_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/log.h"
#include "rpc/rpc_status.h"
#include "sharding/shard_map_proto.h"
#include "worker/weight_peer_client.h"

namespace troupe {
namespace {

// The plan's sources first; others may still stand in for one that fails.
PeerPlan PlanOf(const v1::PrepareShardRequest& request) {
  PeerPlan plan;
  const auto& members = request.serving().members();
  std::map<uint32_t, size_t> peers;  // by rank
  for (int r = 0; r < members.size(); ++r) {
    const auto self = static_cast<int>(request.rank());
    const bool own = self < request.map().members_size() &&
                     members[r].worker() == request.map().members(self).worker();
    if (own || members[r].address().empty()) continue;
    peers[static_cast<uint32_t>(r)] = plan.peers.size();
    plan.peers.push_back(DialWeightPeer(members[r].worker(), members[r].address()));
  }
  for (const v1::PartSource& source : request.sources()) {
    const auto peer = peers.find(source.rank());
    if (peer == peers.end()) continue;
    plan.sources[{.role = static_cast<WeightRole>(source.role()),
                  .layer = source.layer(),
                  .expert = source.expert()}] = peer->second;
  }
  return plan;
}

// Keeps itself alive until gRPC is done with it. Of progress only the newest waits to be sent.
class PrepareCall final : public grpc::ServerWriteReactor<v1::PrepareShardReply>,
                          public std::enable_shared_from_this<PrepareCall> {
 public:
  void Start(const v1::PrepareShardRequest& request, RankMember* member, Executor* loader) {
    self_ = shared_from_this();
    const bool posted = loader->Post([self = self_, request, member] {
      // Whoever asked may have given up while others were loading.
      if (!self->cancelled_) self->Load(request, member);
      self->End(absl::CancelledError("the coordinator gave up"));
    });
    if (!posted) End(absl::UnavailableError("the worker is shutting down"));
  }

 private:
  void Load(const v1::PrepareShardRequest& request, RankMember* member) {
    const uint64_t epoch = request.map().epoch();
    LOG(INFO) << "prepares a shard" << Field("map", epoch) << Field("rank", request.rank());
    const absl::StatusOr<RankMember::Held> held = member->Prepare(
        request.map(), static_cast<int>(request.rank()),
        [this](absl::string_view what, int64_t done, int64_t total) {
          if (what == "weights") Report(done, total);
        },
        PlanOf(request));
    if (!held.ok()) {
      End(held.status());
      return;
    }
    LOG(INFO) << "has prepared a shard" << Field("map", epoch);
    v1::PrepareShardReply reply;
    {
      const std::lock_guard lock(mutex_);
      reply = last_;
      reply.set_identity(held->identity);
      reply.set_digest(held->parts_digest);
      reply.set_peer_bytes(held->read.peers);
      reply.set_disk_bytes(held->read.disk);
      for (const WeightPiece& piece : held->weights) *reply.add_pieces() = ToProto(piece);
      unsent_ = std::move(reply);
      if (!end_.has_value()) end_ = absl::OkStatus();
    }
    Proceed();
  }

  void Report(int64_t done, int64_t total) {
    {
      const std::lock_guard lock(mutex_);
      last_.set_bytes_done(done);
      last_.set_bytes_total(total);
      unsent_ = last_;
    }
    Proceed();
  }

  void End(absl::Status status) {
    {
      const std::lock_guard lock(mutex_);
      if (!end_.has_value()) end_ = std::move(status);
    }
    Proceed();
  }

  // gRPC may run reactions inside of its calls, so no lock is held around them.
  void Proceed() {
    {
      const std::lock_guard lock(mutex_);
      if (busy_ || (!unsent_.has_value() && !end_.has_value())) return;
      busy_ = true;
      if (unsent_.has_value()) {
        writing_ = *std::exchange(unsent_, std::nullopt);
      } else {
        finishing_ = true;
      }
    }
    if (finishing_) {
      Finish(ToGrpcStatus(*end_));
    } else {
      StartWrite(&writing_);
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      busy_ = false;
      if (!ok) {
        unsent_.reset();
        if (!end_.has_value()) end_ = absl::CancelledError("the coordinator is gone");
      }
    }
    Proceed();
  }

  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { self_.reset(); }

  std::shared_ptr<PrepareCall> self_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  // All below are guarded by mutex_, except that `writing_` is gRPC's while `busy_`, and that the
  // end is not written twice.
  v1::PrepareShardReply last_;
  std::optional<v1::PrepareShardReply> unsent_;
  v1::PrepareShardReply writing_;
  std::optional<absl::Status> end_;
  bool busy_ = false;
  bool finishing_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::PrepareShardReply>* PrepareShardCall(
    const v1::PrepareShardRequest& request, RankMember* member, Executor* loader) {
  auto call = std::make_shared<PrepareCall>();
  call->Start(request, member, loader);
  return call.get();
}

grpc::ServerUnaryReactor* RetireShardCall(grpc::CallbackServerContext* context,
                                          const v1::RetireShardRequest& request,
                                          const ActorRef<ExecutorMessage>& executor) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status told = executor.Tell(
      RetireMaps{request.keep_epoch(), [reactor] { reactor->Finish(grpc::Status::OK); }});
  if (!told.ok()) reactor->Finish(ToGrpcStatus(told));
  return reactor;
}

}  // namespace troupe
