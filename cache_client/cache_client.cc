#include "cache_client/cache_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"
#include "cache_client/value_assembler.h"
#include "rpc/rpc_status.h"
#include "troupe/v1/cache.grpc.pb.h"

namespace troupe {
namespace {

// The calls under way, so that the client's end can cancel them and wait.
class CallRegistry {
 public:
  // Counts a call from before its context exists until after it is gone.
  class Entry {
   public:
    explicit Entry(CallRegistry* registry) : registry_(registry) {
      const std::lock_guard<std::mutex> lock(registry_->mutex_);
      ++registry_->call_count_;
    }
    ~Entry() {
      const std::lock_guard<std::mutex> lock(registry_->mutex_);
      // Under the lock: the waiter may destroy the registry as soon as it sees that all have ended.
      if (--registry_->call_count_ == 0) registry_->all_ended_.notify_all();
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    CallRegistry* const registry_;
  };

  void Add(grpc::ClientContext* context) {
    const std::lock_guard<std::mutex> lock(mutex_);
    contexts_.insert(context);
  }

  void Remove(grpc::ClientContext* context) {
    const std::lock_guard<std::mutex> lock(mutex_);
    contexts_.erase(context);
  }

  void CancelAllAndWait() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
    all_ended_.wait(lock, [this] { return call_count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_ended_;
  std::set<grpc::ClientContext*> contexts_;  // guarded by mutex_
  int call_count_ = 0;                       // guarded by mutex_
};

// What every call has: a deadline, and its place in the registry. Calls end on gRPC's threads, and
// the context shares in the channel. Its last owner must not be such a thread (gRPC would join that
// thread with itself), so the context goes before the entry lets the client's destructor go on.
class Call {
 public:
  Call(CallRegistry* registry, int64_t timeout_ms) : registry_(registry), entry_(registry) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms));
    registry_->Add(&context_);
  }
  virtual ~Call() { registry_->Remove(&context_); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  grpc::ClientContext* context() { return &context_; }

 private:
  CallRegistry* const registry_;
  const CallRegistry::Entry entry_;  // before context_: destroyed after it
  grpc::ClientContext context_;
};

template <typename Request, typename Reply, typename DoneCallback>
struct UnaryCall : Call {
  using Call::Call;
  Request request;
  Reply reply;
  DoneCallback done;
};

void FillKey(const CacheClient::Key& from, v1::ValueKey* to) {
  to->set_block_key(from.block_key);
  to->set_tenant_namespace(from.tenant_namespace);
  to->set_group(from.group);
}

template <typename Request>
void FillKeys(const std::string& identity, const std::vector<CacheClient::Key>& keys,
              Request* request) {
  request->set_identity(identity);
  request->mutable_keys()->Reserve(static_cast<int>(keys.size()));
  for (const CacheClient::Key& key : keys) FillKey(key, request->add_keys());
}

class GetCall final : public Call, public grpc::ClientReadReactor<v1::ValueChunk> {
 public:
  GetCall(CallRegistry* registry, int64_t timeout_ms, CacheClient::OnValue on_value,
          CacheClient::Done done)
      : Call(registry, timeout_ms), on_value_(std::move(on_value)), done_(std::move(done)) {}

  void Start(v1::Cache::Stub* stub, const std::string& identity,
             const std::vector<CacheClient::Key>& keys) {
    key_count_ = keys.size();
    FillKeys(identity, keys, &request_);
    stub->async()->Get(context(), &request_, this);
    StartRead(&chunk_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    failure_ = Accept();
    if (failure_.ok()) {
      StartRead(&chunk_);
    } else {
      context()->TryCancel();
    }
  }

  void OnDone(const grpc::Status& status) override {
    absl::Status result = failure_.ok() ? FromGrpcStatus(status) : failure_;
    if (result.ok() && next_index_ != key_count_) {
      result = absl::InternalError(
          absl::StrCat("the cache service answered ", next_index_, " of ", key_count_, " keys"));
    }
    done_(std::move(result));
    delete this;
  }

 private:
  absl::Status Accept() {
    if (chunk_.index() != next_index_ || next_index_ == key_count_) {
      return absl::InternalError(absl::StrCat("the cache service answered key ", chunk_.index(),
                                              ", wanted key ", next_index_, " of ", key_count_));
    }
    if (!chunk_.found()) {
      on_value_(next_index_++, std::nullopt);
      return absl::OkStatus();
    }
    absl::Status status = absl::OkStatus();
    if (!value_.active()) status = value_.Begin(chunk_.value_bytes(), chunk_.crc32c());
    if (status.ok()) status = value_.Append(chunk_.offset(), chunk_.data());
    if (!status.ok()) {
      return absl::InternalError(
          absl::StrCat("the cache service sent a malformed chunk: ", status.message()));
    }
    if (!value_.complete()) return absl::OkStatus();
    absl::StatusOr<std::string> value = value_.Take();
    if (value.ok()) {
      on_value_(next_index_++, *std::move(value));
    } else {
      on_value_(next_index_++, value.status());
    }
    return absl::OkStatus();
  }

  v1::GetRequest request_;
  v1::ValueChunk chunk_;
  ValueAssembler value_;
  size_t key_count_ = 0;
  size_t next_index_ = 0;  // of the key whose answer arrives now
  absl::Status failure_;
  CacheClient::OnValue on_value_;
  CacheClient::Done done_;
};

class PutCall final : public Call, public grpc::ClientWriteReactor<v1::PutChunk> {
 public:
  PutCall(CallRegistry* registry, int64_t timeout_ms, CacheClient::PutDone done)
      : Call(registry, timeout_ms), done_(std::move(done)) {}

  void Start(v1::Cache::Stub* stub, const std::string& identity,
             std::vector<CacheClient::Value> values) {
    identity_ = identity;
    values_ = std::move(values);
    stub->async()->Put(context(), &reply_, this);
    WriteNext();
    StartCall();
  }

  // Not ok: the service has ended the call, and OnDone brings its status.
  void OnWriteDone(bool ok) override {
    if (ok) WriteNext();
  }

  void OnDone(const grpc::Status& status) override {
    if (status.ok()) {
      done_(CacheClient::PutCounts{static_cast<int>(reply_.stored()),
                                   static_cast<int>(reply_.existing())});
    } else {
      done_(FromGrpcStatus(status));
    }
    delete this;
  }

 private:
  void WriteNext() {
    if (next_value_ == values_.size()) {
      StartWritesDone();
      return;
    }
    const CacheClient::Value& value = values_[next_value_];
    chunk_.Clear();
    if (next_offset_ == 0) {
      chunk_.set_identity(identity_);
      FillKey(value.key, chunk_.mutable_key());
      chunk_.set_value_bytes(value.bytes.size());
      chunk_.set_crc32c(Crc32c(value.bytes));
    }
    chunk_.set_offset(next_offset_);
    chunk_.set_data(value.bytes.substr(next_offset_, kCacheMaxChunkBytes));
    next_offset_ += chunk_.data().size();
    if (next_offset_ >= value.bytes.size()) {
      ++next_value_;
      next_offset_ = 0;
    }
    StartWrite(&chunk_);
  }

  std::string identity_;
  std::vector<CacheClient::Value> values_;
  size_t next_value_ = 0;
  size_t next_offset_ = 0;
  v1::PutChunk chunk_;
  v1::PutReply reply_;
  CacheClient::PutDone done_;
};

CacheClient::Info ToInfo(const v1::InfoReply& reply) {
  return {.capacity_bytes = reply.capacity_bytes(),
          .used_bytes = reply.used_bytes(),
          .values = reply.values(),
          .hits = reply.hits(),
          .misses = reply.misses(),
          .damaged = reply.damaged(),
          .stored = reply.stored(),
          .existing = reply.existing(),
          .refused = reply.refused()};
}

}  // namespace

class CacheClient::Impl {
 public:
  Impl(std::shared_ptr<grpc::Channel> channel, const Config& config)
      : config(config), stub(v1::Cache::NewStub(std::move(channel))) {}
  ~Impl() { calls.CancelAllAndWait(); }

  const Config config;
  const std::unique_ptr<v1::Cache::Stub> stub;
  CallRegistry calls;
};

std::unique_ptr<CacheClient> CacheClient::Connect(const std::string& address,
                                                  const Config& config) {
  grpc::ChannelArguments arguments;
  // A cache that restarts should be found again in seconds, not in gRPC's two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  return std::make_unique<CacheClient>(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments), config);
}

CacheClient::CacheClient(std::shared_ptr<grpc::Channel> channel, const Config& config)
    : impl_(std::make_unique<Impl>(std::move(channel), config)) {}

CacheClient::~CacheClient() = default;

void CacheClient::Stat(const std::string& identity, const std::vector<Key>& keys, StatDone done) {
  using StatCall = UnaryCall<v1::StatRequest, v1::StatReply, StatDone>;
  auto* call = new StatCall(&impl_->calls, impl_->config.stat_timeout_ms);
  FillKeys(identity, keys, &call->request);
  call->done = std::move(done);
  impl_->stub->async()->Stat(
      call->context(), &call->request, &call->reply, [call](const grpc::Status& status) {
        const std::unique_ptr<StatCall> owned(call);
        const auto& found = call->reply.found();
        if (!status.ok()) {
          call->done(FromGrpcStatus(status));
        } else if (found.size() != call->request.keys_size()) {
          call->done(absl::InternalError(absl::StrCat("the cache service answered ", found.size(),
                                                      " of ", call->request.keys_size(), " keys")));
        } else {
          call->done(std::vector<bool>(found.begin(), found.end()));
        }
      });
}

void CacheClient::Get(const std::string& identity, const std::vector<Key>& keys, OnValue on_value,
                      Done done) {
  auto* call = new GetCall(&impl_->calls, impl_->config.transfer_timeout_ms, std::move(on_value),
                           std::move(done));
  call->Start(impl_->stub.get(), identity, keys);
}

void CacheClient::Put(const std::string& identity, std::vector<Value> values, PutDone done) {
  auto* call = new PutCall(&impl_->calls, impl_->config.transfer_timeout_ms, std::move(done));
  call->Start(impl_->stub.get(), identity, std::move(values));
}

void CacheClient::GetInfo(InfoDone done) {
  using InfoCall = UnaryCall<v1::InfoRequest, v1::InfoReply, InfoDone>;
  auto* call = new InfoCall(&impl_->calls, impl_->config.stat_timeout_ms);
  call->done = std::move(done);
  impl_->stub->async()->Info(call->context(), &call->request, &call->reply,
                             [call](const grpc::Status& status) {
                               const std::unique_ptr<InfoCall> owned(call);
                               if (status.ok()) {
                                 call->done(ToInfo(call->reply));
                               } else {
                                 call->done(FromGrpcStatus(status));
                               }
                             });
}

}  // namespace troupe
