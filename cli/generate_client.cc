#include "cli/generate_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <mutex>

#include "rpc/rpc_status.h"
#include "troupe/v1/admin.grpc.pb.h"
#include "troupe/v1/inference.grpc.pb.h"

namespace troupe {

struct CallCanceller::State {
  std::mutex mutex;
  grpc::ClientContext* context = nullptr;
  bool cancelled = false;
};

CallCanceller::CallCanceller() : state_(std::make_shared<State>()) {}
CallCanceller::~CallCanceller() = default;

void CallCanceller::Cancel() {
  std::lock_guard lock(state_->mutex);
  state_->cancelled = true;
  if (state_->context != nullptr) state_->context->TryCancel();
}

bool CallCanceller::cancelled() const {
  std::lock_guard lock(state_->mutex);
  return state_->cancelled;
}

struct GenerateClient::Stubs {
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Admin::Stub> admin;
};

GenerateClient::GenerateClient(const std::string& target) : stubs_(std::make_unique<Stubs>()) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  stubs_->inference = v1::Inference::NewStub(channel);
  stubs_->admin = v1::Admin::NewStub(channel);
}

GenerateClient::~GenerateClient() = default;

absl::Status GenerateClient::Generate(
    const v1::GenerateRequest& request, const CallOptions& options,
    const std::function<void(const v1::GenerateEvent&)>& on_event) {
  grpc::ClientContext context;
  if (!options.tenant.empty()) context.AddMetadata("troupe-tenant", options.tenant);
  const std::shared_ptr<CallCanceller::State> canceller =
      options.canceller == nullptr ? nullptr : options.canceller->state_;
  if (canceller != nullptr) {
    std::lock_guard lock(canceller->mutex);
    if (canceller->cancelled) return absl::CancelledError("cancelled");
    canceller->context = &context;
  }
  auto reader = stubs_->inference->Generate(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) on_event(event);
  const grpc::Status status = reader->Finish();
  if (canceller != nullptr) {
    std::lock_guard lock(canceller->mutex);
    canceller->context = nullptr;
  }
  return FromGrpcStatus(status);
}

absl::StatusOr<v1::ClusterStatus> GenerateClient::GetStatus() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  v1::ClusterStatus status;
  const grpc::Status called = stubs_->admin->GetStatus(&context, {}, &status);
  if (!called.ok()) return FromGrpcStatus(called);
  return status;
}

absl::Status GenerateClient::Reshard(const v1::ReshardRequest& request,
                                     const std::function<void(const v1::ReshardEvent&)>& on_event) {
  grpc::ClientContext context;
  auto reader = stubs_->admin->Reshard(&context, request);
  v1::ReshardEvent event;
  while (reader->Read(&event)) on_event(event);
  return FromGrpcStatus(reader->Finish());
}

}  // namespace troupe
