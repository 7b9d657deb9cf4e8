#include "coordinator/inference_service.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_util.h"
#include "rpc/rpc_status.h"

namespace troupe {
namespace {

constexpr char kTenantKey[] = "troupe-tenant";
constexpr size_t kMaxRequestId = 256;

uint64_t DrawSeed() {
  thread_local absl::BitGen random;
  return absl::Uniform<uint64_t>(random);
}

// One Generate call. Keeps itself alive until gRPC is done with it.
class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(uint32_t max_unread, std::shared_ptr<std::atomic<uint32_t>> active)
      : max_unread_(max_unread), active_(std::move(active)) {}

  void Start(Executor& executor, std::shared_ptr<JobContext> context, JobActor::Request request) {
    self_ = shared_from_this();
    job_ = Spawn<JobActor>(executor, ActorOptions{.name = absl::StrCat("job/", request.request_id)},
                           std::move(context), std::move(request), std::make_unique<Sink>(self_));
  }

  void Refuse(const absl::Status& status) {
    self_ = shared_from_this();
    Finish(ToGrpcStatus(status));
  }

 private:
  class Sink final : public EventSink {
   public:
    explicit Sink(std::shared_ptr<GenerateCall> call) : call_(std::move(call)) {}
    absl::Status Send(v1::GenerateEvent event) override { return call_->Push(std::move(event)); }
    void Close(absl::Status status) override { call_->PushEnd(std::move(status)); }

   private:
    const std::shared_ptr<GenerateCall> call_;
  };

  absl::Status Push(v1::GenerateEvent event) {
    const v1::GenerateEvent* first;
    {
      std::lock_guard lock(mutex_);
      if (broken_) return absl::CancelledError("the client is gone");
      if (unread_.size() >= max_unread_) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the client reads too slowly: ", max_unread_, " events wait to be read"));
      }
      unread_.push_back(std::move(event));
      if (std::exchange(writing_, true)) return absl::OkStatus();
      first = &unread_.front();
    }
    StartWrite(first);
    return absl::OkStatus();
  }

  void PushEnd(absl::Status status) {
    {
      std::lock_guard lock(mutex_);
      end_ = std::move(status);
      if (writing_) return;
    }
    Leave();
  }

  void OnWriteDone(bool ok) override {
    const v1::GenerateEvent* next = nullptr;
    {
      std::lock_guard lock(mutex_);
      unread_.pop_front();
      if (!ok) {
        broken_ = true;
        unread_.clear();
      }
      if (!unread_.empty()) next = &unread_.front();
      writing_ = next != nullptr;
      if (!writing_ && !end_.has_value()) return;
    }
    if (next != nullptr) {
      StartWrite(next);
    } else {
      Leave();
    }
  }

  void OnCancel() override {
    (void)job_.ref().TellReply(ClientGone{absl::CancelledError("cancelled, or past its deadline")});
  }

  void OnDone() override { self_.reset(); }

  // Gives its place away first: a client that has seen the end may come again at once.
  void Leave() {
    --*active_;
    Finish(ToGrpcStatus(*end_));
  }

  const size_t max_unread_;
  const std::shared_ptr<std::atomic<uint32_t>> active_;
  std::shared_ptr<GenerateCall> self_;
  ActorHandle<JobMessage> job_;

  std::mutex mutex_;
  // All below are guarded by mutex_, except that the front is gRPC's while `writing_`.
  std::deque<v1::GenerateEvent> unread_;
  bool writing_ = false;
  bool broken_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace

InferenceService::InferenceService(const Config& config, std::shared_ptr<JobContext> context,
                                   TenantNamespaces tenants, Executor* executor)
    : config_(config),
      context_(std::move(context)),
      tenants_(std::move(tenants)),
      executor_(executor),
      active_(std::make_shared<std::atomic<uint32_t>>(0)) {}

absl::StatusOr<JobActor::Request> InferenceService::Accept(
    const grpc::CallbackServerContext& call, const v1::GenerateRequest& request) const {
  TROUPE_RETURN_IF_ERROR(CheckRequest(request, context_->model));
  if (request.request_id().size() > kMaxRequestId) {
    return absl::InvalidArgumentError(absl::StrCat("request_id: found ",
                                                   request.request_id().size(),
                                                   " bytes, wanted at most ", kMaxRequestId));
  }
  JobActor::Request job;
  const auto tenant = call.client_metadata().find(kTenantKey);
  job.tenant = tenant == call.client_metadata().end()
                   ? std::string(kDefaultTenant)
                   : std::string(tenant->second.data(), tenant->second.size());
  TROUPE_RETURN_IF_ERROR(ValidateTenantName(job.tenant));
  job.tenant_namespace = tenants_.Of(job.tenant);
  job.drawn_seed = DrawSeed();
  job.request_id =
      request.request_id().empty() ? absl::StrFormat("%016x", DrawSeed()) : request.request_id();
  job.body = request;
  return job;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* InferenceService::Generate(
    grpc::CallbackServerContext* call, const v1::GenerateRequest* request) {
  auto reactor = std::make_shared<GenerateCall>(config_.max_unread_events, active_);
  absl::StatusOr<JobActor::Request> job = Accept(*call, *request);
  if (!job.ok()) {
    reactor->Refuse(job.status());
  } else if (active_->fetch_add(1) >= config_.max_requests) {
    --*active_;
    reactor->Refuse(absl::ResourceExhaustedError(absl::StrCat(
        config_.max_requests, " requests are under way, which is the limit; retry later")));
  } else {
    ++accepted_;
    reactor->Start(*executor_, context_, *std::move(job));
  }
  return reactor.get();
}

}  // namespace troupe
