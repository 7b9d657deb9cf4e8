#include "cache_service/cache_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "cache_client/cache_limits.h"
#include "cache_client/value_assembler.h"
#include "rpc/rpc_status.h"

namespace troupe {
namespace {

absl::Status CheckLength(absl::string_view field, size_t found, size_t wanted) {
  if (found == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": found ", found, " bytes, wanted ", wanted));
}

absl::StatusOr<ValueId> ParseId(const std::string& identity, const v1::ValueKey& key,
                                absl::string_view field) {
  TROUPE_RETURN_IF_ERROR(CheckLength("identity", identity.size(), kCacheIdentityBytes));
  TROUPE_RETURN_IF_ERROR(
      CheckLength(absl::StrCat(field, ".block_key"), key.block_key().size(), kCacheBlockKeyBytes));
  if (key.tenant_namespace().size() > kCacheMaxNamespaceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ".tenant_namespace: found ", key.tenant_namespace().size(),
                     " bytes, wanted at most ", kCacheMaxNamespaceBytes));
  }
  return ValueId{.identity = identity,
                 .tenant_namespace = key.tenant_namespace(),
                 .block_key = key.block_key(),
                 .group = key.group()};
}

// Of a StatRequest or GetRequest.
template <typename Request>
absl::StatusOr<std::vector<ValueId>> ParseIds(const Request& request) {
  if (request.keys_size() > kCacheMaxKeysPerRequest) {
    return absl::InvalidArgumentError(absl::StrCat("keys: found ", request.keys_size(),
                                                   ", wanted at most ", kCacheMaxKeysPerRequest,
                                                   "; ask in several requests"));
  }
  std::vector<ValueId> ids;
  ids.reserve(request.keys_size());
  for (int i = 0; i < request.keys_size(); ++i) {
    TROUPE_ASSIGN_OR_RETURN(
        ValueId id, ParseId(request.identity(), request.keys(i), absl::StrCat("keys[", i, "]")));
    ids.push_back(std::move(id));
  }
  return ids;
}

absl::Status ShuttingDown() {
  return absl::UnavailableError("the cache service is shutting down; try again later");
}

}  // namespace

// Sends values one after another: load one on the executor, then write its chunks.
class CacheService::GetCall final : public grpc::ServerWriteReactor<v1::ValueChunk> {
 public:
  GetCall(CacheService* service, grpc::CallbackServerContext* context,
          const v1::GetRequest& request)
      : service_(service), context_(context) {
    absl::StatusOr<std::vector<ValueId>> ids = ParseIds(request);
    if (!ids.ok()) {
      Finish(ToGrpcStatus(ids.status()));
      return;
    }
    ids_ = *std::move(ids);
    LoadNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
    } else if (next_offset_ < value_.bytes.size()) {
      WriteChunk();
    } else {
      ++next_id_;
      LoadNext();
    }
  }

  void OnDone() override { delete this; }

 private:
  void LoadNext() {
    value_ = StoredValue();
    next_offset_ = 0;
    if (next_id_ == ids_.size()) {
      Finish(grpc::Status::OK);
      return;
    }
    if (!service_->executor_->Post([this] { Load(); })) Finish(ToGrpcStatus(ShuttingDown()));
  }

  void Load() {
    if (context_->IsCancelled()) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    absl::StatusOr<StoredValue> value = service_->store_->Get(ids_[next_id_]);
    if (value.ok()) {
      value_ = *std::move(value);
      WriteChunk();
    } else {
      chunk_.Clear();
      chunk_.set_index(next_id_);
      StartWrite(&chunk_);
    }
  }

  void WriteChunk() {
    chunk_.Clear();
    chunk_.set_index(next_id_);
    chunk_.set_found(true);
    chunk_.set_value_bytes(value_.bytes.size());
    if (next_offset_ == 0) chunk_.set_crc32c(value_.crc32c);
    chunk_.set_offset(next_offset_);
    const size_t count = std::min(kCacheMaxChunkBytes, value_.bytes.size() - next_offset_);
    chunk_.set_data(value_.bytes.data() + next_offset_, count);
    next_offset_ += count;
    StartWrite(&chunk_);
  }

  CacheService* const service_;
  grpc::CallbackServerContext* const context_;
  std::vector<ValueId> ids_;
  uint32_t next_id_ = 0;
  StoredValue value_;  // of ids_[next_id_]; empty when it was not found
  size_t next_offset_ = 0;
  v1::ValueChunk chunk_;
};

// Takes values one after another: read the chunks of one, then store it on the executor.
class CacheService::PutCall final : public grpc::ServerReadReactor<v1::PutChunk> {
 public:
  PutCall(CacheService* service, v1::PutReply* reply) : service_(service), reply_(reply) {
    StartRead(&chunk_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(CheckEnd());
      return;
    }
    absl::Status status = Accept();
    if (!status.ok()) {
      End(Annotate(status, absl::StrCat("value ", values_done_)));
    } else if (!value_.complete()) {
      StartRead(&chunk_);
    } else if (!service_->executor_->Post([this] { StoreValue(); })) {
      End(ShuttingDown());
    }
  }

  void OnDone() override { delete this; }

 private:
  // Gives back first: a client that has its answer may come again at once.
  void End(const absl::Status& status) {
    service_->ReleaseArrival(std::exchange(reserved_bytes_, 0));
    Finish(ToGrpcStatus(status));
  }

  absl::Status Accept() {
    if (!value_.active()) {
      if (!chunk_.has_key()) {
        return absl::InvalidArgumentError(
            "key: found none, wanted one on the first chunk of each value");
      }
      TROUPE_ASSIGN_OR_RETURN(id_, ParseId(chunk_.identity(), chunk_.key(), "key"));
      TROUPE_RETURN_IF_ERROR(value_.Begin(chunk_.value_bytes(), chunk_.crc32c()));
      TROUPE_RETURN_IF_ERROR(service_->ReserveArrival(value_.value_bytes()));
      reserved_bytes_ = value_.value_bytes();
    } else if (chunk_.has_key()) {
      return absl::InvalidArgumentError(
          absl::StrCat("key: found one in the middle of a value, after ", value_.bytes_received(),
                       " of ", value_.value_bytes(), " bytes"));
    }
    return value_.Append(chunk_.offset(), chunk_.data());
  }

  absl::Status CheckEnd() const {
    if (!value_.active()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("value ", values_done_, ": data: the stream ended after ",
                     value_.bytes_received(), " of ", value_.value_bytes(), " bytes"));
  }

  void StoreValue() {
    const uint32_t crc32c = value_.crc32c();
    absl::StatusOr<std::string> bytes = value_.Take();
    absl::StatusOr<Store::PutOutcome> outcome =
        bytes.ok() ? service_->store_->Put(id_, *bytes, crc32c) : bytes.status();
    if (!outcome.ok()) {
      End(Annotate(outcome.status(), absl::StrCat("value ", values_done_)));
      return;
    }
    if (*outcome == Store::PutOutcome::kStored) reply_->set_stored(reply_->stored() + 1);
    if (*outcome == Store::PutOutcome::kExisting) reply_->set_existing(reply_->existing() + 1);
    service_->ReleaseArrival(std::exchange(reserved_bytes_, 0));
    ++values_done_;
    StartRead(&chunk_);
  }

  CacheService* const service_;
  v1::PutReply* const reply_;
  v1::PutChunk chunk_;
  ValueId id_;
  ValueAssembler value_;
  uint64_t reserved_bytes_ = 0;
  int values_done_ = 0;
};

CacheService::CacheService(const Config& config, Store* store, Executor* executor)
    : config_(config), store_(store), executor_(executor) {}

grpc::ServerUnaryReactor* CacheService::Stat(grpc::CallbackServerContext* context,
                                             const v1::StatRequest* request, v1::StatReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<std::vector<ValueId>> ids = ParseIds(*request);
  if (!ids.ok()) {
    reactor->Finish(ToGrpcStatus(ids.status()));
    return reactor;
  }
  const bool posted = executor_->Post([this, ids = *std::move(ids), reply, reactor] {
    for (const ValueId& id : ids) reply->add_found(store_->Contains(id));
    reactor->Finish(grpc::Status::OK);
  });
  if (!posted) reactor->Finish(ToGrpcStatus(ShuttingDown()));
  return reactor;
}

grpc::ServerWriteReactor<v1::ValueChunk>* CacheService::Get(grpc::CallbackServerContext* context,
                                                            const v1::GetRequest* request) {
  return new GetCall(this, context, *request);
}

grpc::ServerReadReactor<v1::PutChunk>* CacheService::Put(grpc::CallbackServerContext* /*context*/,
                                                         v1::PutReply* reply) {
  return new PutCall(this, reply);
}

grpc::ServerUnaryReactor* CacheService::Info(grpc::CallbackServerContext* context,
                                             const v1::InfoRequest* /*request*/,
                                             v1::InfoReply* reply) {
  const StoreStats stats = store_->stats();
  reply->set_capacity_bytes(stats.capacity_bytes);
  reply->set_used_bytes(stats.used_bytes);
  reply->set_values(stats.values);
  reply->set_hits(stats.hits);
  reply->set_misses(stats.misses);
  reply->set_damaged(stats.damaged);
  reply->set_stored(stats.stored);
  reply->set_existing(stats.existing);
  reply->set_refused(stats.refused);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

absl::Status CacheService::ReserveArrival(uint64_t value_bytes) {
  const uint64_t before = arriving_bytes_.fetch_add(value_bytes, std::memory_order_relaxed);
  if (before + value_bytes <= config_.max_arriving_bytes) return absl::OkStatus();
  ReleaseArrival(value_bytes);
  return absl::ResourceExhaustedError(
      absl::StrCat("value_bytes: ", value_bytes, " more would make over ",
                   config_.max_arriving_bytes, " bytes arriving at once; try again later"));
}

void CacheService::ReleaseArrival(uint64_t value_bytes) {
  arriving_bytes_.fetch_sub(value_bytes, std::memory_order_relaxed);
}

}  // namespace troupe
