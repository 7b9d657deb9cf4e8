#include "worker/registration_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/status_util.h"
#include "rpc/rpc_status.h"
#include "troupe/v1/admin.grpc.pb.h"

namespace troupe {
namespace {

constexpr std::chrono::seconds kTimeout(3);

class GrpcRegistrationClient final : public RegistrationClient {
 public:
  explicit GrpcRegistrationClient(const std::string& address) : address_(address) {
    grpc::ChannelArguments arguments;
    // The coordinator may start later, or again: look for it every second or so.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    stub_ = v1::Admin::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  ~GrpcRegistrationClient() override {
    std::unique_lock lock(mutex_);
    if (call_ != nullptr) call_->context.TryCancel();
    ended_.wait(lock, [this] { return !under_way_; });
  }

  void Register(const v1::RegisterWorkerRequest& request, Done done) override {
    Call* call;
    {
      const std::lock_guard lock(mutex_);
      CHECK(!under_way_) << "one registration at a time";
      under_way_ = true;
      call_ = std::make_unique<Call>();
      call = call_.get();
    }
    call->request = request;
    call->done = std::move(done);
    call->context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    stub_->async()->RegisterWorker(&call->context, &call->request, &call->reply,
                                   [this](const grpc::Status& status) { OnDone(status); });
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::RegisterWorkerRequest request;
    v1::RegisterWorkerReply reply;
    Done done;
  };

  void OnDone(const grpc::Status& status) {
    std::unique_ptr<Call> call;
    {
      const std::lock_guard lock(mutex_);
      call = std::move(call_);
    }
    Done done = std::move(call->done);
    absl::StatusOr<v1::RegisterWorkerReply> reply = std::move(call->reply);
    if (!status.ok()) reply = Annotate(FromGrpcStatus(status), address_);
    // The context shares in the channel, whose last owner must not be this thread.
    call.reset();
    std::unique_lock lock(mutex_);
    under_way_ = false;
    // Under the lock: the destructor returns when it sees this, and `done` may start the next call.
    ended_.notify_all();
    lock.unlock();
    done(std::move(reply));
  }

  const std::string address_;
  std::unique_ptr<v1::Admin::Stub> stub_;
  std::mutex mutex_;
  std::condition_variable ended_;
  // Both below are guarded by mutex_.
  std::unique_ptr<Call> call_;
  bool under_way_ = false;
};

}  // namespace

std::unique_ptr<RegistrationClient> DialCoordinator(const std::string& address) {
  return std::make_unique<GrpcRegistrationClient>(address);
}

}  // namespace troupe
