#include "coordinator/reshard/rank_control_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "rpc/rpc_status.h"
#include "sharding/shard_map_proto.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {
namespace {

constexpr auto kRetireTimeout = std::chrono::seconds(10);

using Stub = std::shared_ptr<v1::Worker::Stub>;

// One PrepareShard stream. Keeps itself alive until gRPC is done with it.
class PrepareStream final : public grpc::ClientReadReactor<v1::PrepareShardReply>,
                            public std::enable_shared_from_this<PrepareStream> {
 public:
  PrepareStream(Stub stub, v1::RankMember rank, v1::PrepareShardRequest request,
                ActorRef<ReshardMessage> owner)
      : stub_(std::move(stub)),
        rank_(std::move(rank)),
        request_(std::move(request)),
        owner_(std::move(owner)) {}

  void Start() {
    self_ = shared_from_this();
    stub_->async()->PrepareShard(&context_, &request_, this);
    StartRead(&reply_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (!reply_.digest().empty()) {
      digest_ = reply_.digest();
      identity_ = reply_.identity();
      peer_bytes_ = reply_.peer_bytes();
      disk_bytes_ = reply_.disk_bytes();
      for (const v1::WeightPiece& piece : reply_.pieces()) TakePiece(FromProto(piece));
    }
    const double total = std::max<double>(1, static_cast<double>(reply_.bytes_total()));
    const double done =
        reply_.digest().empty() ? static_cast<double>(reply_.bytes_done()) / total : 1;
    (void)owner_.TellReply(
        PrepareProgressed{request_.map().epoch(), rank_.worker(), std::min(done, 1.0)});
    StartRead(&reply_);
  }

  void TakePiece(absl::StatusOr<WeightPiece> piece) {
    if (!piece.ok()) {
      digest_ = piece.status();
    } else {
      weights_.push_back(*piece);
    }
  }

  void OnDone(const grpc::Status& status) override {
    absl::StatusOr<std::string> digest = digest_;
    if (!status.ok()) {
      digest = Annotate(FromGrpcStatus(status), rank_.address());
    } else if (digest.ok() && digest->empty()) {
      digest = absl::InternalError(absl::StrCat(rank_.address(), " ended without a digest"));
    }
    (void)owner_.TellReply(PrepareEnded{request_.map().epoch(), rank_.worker(), std::move(digest),
                                        identity_, std::move(weights_), peer_bytes_, disk_bytes_});
    self_.reset();
  }

  const Stub stub_;
  const v1::RankMember rank_;
  const v1::PrepareShardRequest request_;
  const ActorRef<ReshardMessage> owner_;
  grpc::ClientContext context_;
  v1::PrepareShardReply reply_;
  absl::StatusOr<std::string> digest_ = std::string();
  std::string identity_;
  uint64_t peer_bytes_ = 0;
  uint64_t disk_bytes_ = 0;
  std::vector<WeightPiece> weights_;
  std::shared_ptr<PrepareStream> self_;
};

class PrepareCall final : public RankControl::Call {
 public:
  explicit PrepareCall(std::shared_ptr<PrepareStream> stream) : stream_(std::move(stream)) {}
  ~PrepareCall() override { stream_->Cancel(); }

 private:
  const std::shared_ptr<PrepareStream> stream_;
};

struct RetireCall {
  grpc::ClientContext context;
  v1::RetireShardRequest request;
  v1::RetireShardReply reply;
};

class Control final : public RankControl {
 public:
  std::unique_ptr<Call> Prepare(const v1::RankMember& rank, const v1::PrepareShardRequest& request,
                                ActorRef<ReshardMessage> owner) override {
    auto stream =
        std::make_shared<PrepareStream>(StubOf(rank.address()), rank, request, std::move(owner));
    stream->Start();
    return std::make_unique<PrepareCall>(std::move(stream));
  }

  void Retire(const v1::RankMember& rank, uint64_t keep_epoch, uint64_t epoch,
              ActorRef<ReshardMessage> owner) override {
    auto call = std::make_shared<RetireCall>();
    call->context.set_deadline(std::chrono::system_clock::now() + kRetireTimeout);
    call->request.set_keep_epoch(keep_epoch);
    const Stub stub = StubOf(rank.address());
    stub->async()->RetireShard(
        &call->context, &call->request, &call->reply,
        [call, stub, worker = rank.worker(), keep_epoch, epoch,
         owner = std::move(owner)](const grpc::Status& status) {
          (void)owner.TellReply(RetireEnded{epoch, worker, keep_epoch, FromGrpcStatus(status)});
        });
  }

 private:
  Stub StubOf(const std::string& address) {
    Stub& stub = stubs_[address];
    if (stub == nullptr) {
      stub = v1::Worker::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    }
    return stub;
  }

  std::map<std::string, Stub> stubs_;  // by address
};

}  // namespace

std::unique_ptr<RankControl> GrpcRankControl() { return std::make_unique<Control>(); }

}  // namespace troupe
