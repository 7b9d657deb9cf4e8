#include "worker/block_transfers.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {
namespace {

using Done = v1::TransferDone;

CacheClient::Key KeyOf(const v1::BlockTransfer& transfer) {
  return {transfer.block_key(), transfer.tenant_namespace(), transfer.group()};
}

// Tells the owner of every load of one call, of those that got no answer as well.
class LoadCall {
 public:
  LoadCall(uint64_t epoch, std::vector<uint64_t> ids, ActorRef<ExecutorMessage> owner)
      : epoch_(epoch), ids_(std::move(ids)), owner_(std::move(owner)) {}

  void OnValue(absl::StatusOr<std::optional<std::string>> bytes) {
    // Gone: the worker is shutting down.
    owner_.TellReply(LoadEnded{epoch_, ids_[answered_++], std::move(bytes)}).IgnoreError();
  }

  void OnDone(const absl::Status& status) {
    while (answered_ < ids_.size()) {
      OnValue(status.ok() ? absl::InternalError("the cache service left the key out") : status);
    }
  }

 private:
  const uint64_t epoch_;
  const std::vector<uint64_t> ids_;
  const ActorRef<ExecutorMessage> owner_;
  size_t answered_ = 0;
};

}  // namespace

BlockTransfers::BlockTransfers(const Config& config, KvPages* pages, CacheClient* client,
                               std::string identity, const Clock* clock)
    : config_(config),
      pages_(pages),
      client_(client),
      identity_(std::move(identity)),
      clock_(clock) {}

void BlockTransfers::Reset(uint64_t epoch) {
  epoch_ = epoch;
  under_way_.clear();
  ended_.clear();
}

absl::Status BlockTransfers::Begin(const v1::BlockTransfer& transfer) {
  const UnderWay entry{transfer.group(), transfer.page(), clock_->MonotonicNs()};
  if (under_way_.emplace(transfer.id(), entry).second) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("transfer id: found ", transfer.id(), ", which is under way, wanted a new one"));
}

absl::Status BlockTransfers::StartLoads(const v1::StepPlan& plan,
                                        const ActorRef<ExecutorMessage>& owner) {
  std::vector<uint64_t> ids;
  std::vector<CacheClient::Key> keys;
  for (const v1::BlockTransfer& load : plan.loads()) {
    TROUPE_RETURN_IF_ERROR(Begin(load));
    if (client_ == nullptr) {
      Finish(load.id(), Done::OUTCOME_MISS, 0);
    } else if (under_way_.size() > config_.max_under_way) {
      Finish(load.id(), Done::OUTCOME_FAILED, 0);
    } else {
      ids.push_back(load.id());
      keys.push_back(KeyOf(load));
    }
  }
  if (ids.empty()) return absl::OkStatus();
  auto call = std::make_shared<LoadCall>(epoch_, std::move(ids), owner);
  client_->Get(
      identity_, keys,
      [call](size_t /*index*/, absl::StatusOr<std::optional<std::string>> value) {
        call->OnValue(std::move(value));
      },
      [call](const absl::Status& status) { call->OnDone(status); });
  return absl::OkStatus();
}

absl::Status BlockTransfers::StartStores(const v1::StepPlan& plan,
                                         const ActorRef<ExecutorMessage>& owner) {
  for (const v1::BlockTransfer& store : plan.stores()) {
    TROUPE_RETURN_IF_ERROR(Begin(store));
    TROUPE_ASSIGN_OR_RETURN(const absl::Span<std::byte> page,
                            pages_->Page(store.group(), store.page()));
    const auto size = static_cast<int64_t>(page.size());
    if (client_ == nullptr || under_way_.size() > config_.max_under_way ||
        store_bytes_ + size > config_.max_store_bytes) {
      Finish(store.id(), Done::OUTCOME_FAILED, 0);
      continue;
    }
    store_bytes_ += size;
    std::vector<CacheClient::Value> values(1);
    values[0].key = KeyOf(store);
    TROUPE_ASSIGN_OR_RETURN(values[0].bytes, pages_->ReadPage(store.group(), store.page()));
    client_->Put(identity_, std::move(values),
                 [epoch = epoch_, id = store.id(), size,
                  owner](const absl::StatusOr<CacheClient::PutCounts>& counts) {
                   owner.TellReply(StoreEnded{epoch, id, size, counts.status()}).IgnoreError();
                 });
  }
  return absl::OkStatus();
}

void BlockTransfers::End(LoadEnded message) {
  const bool damaged = absl::IsDataLoss(message.bytes.status());
  NoteService(damaged ? absl::OkStatus() : message.bytes.status());
  const auto load = under_way_.find(message.id);
  if (message.epoch != epoch_ || load == under_way_.end()) return;
  if (message.bytes.ok() && message.bytes->has_value()) {
    const bool whole = WritePage(load->second, **message.bytes);
    Finish(message.id, whole ? Done::OUTCOME_DONE : Done::OUTCOME_MISS,
           whole ? static_cast<int64_t>((*message.bytes)->size()) : 0);
  } else {
    const bool miss = message.bytes.ok() || damaged;
    Finish(message.id, miss ? Done::OUTCOME_MISS : Done::OUTCOME_FAILED, 0);
  }
}

void BlockTransfers::NoteService(const absl::Status& status) {
  if (std::exchange(service_fails_, !status.ok()) == service_fails_) return;
  if (service_fails_) {
    LOG(WARNING) << "transfers to or from the cache service fail: " << status;
  } else {
    LOG(INFO) << "the cache service answers again";
  }
}

bool BlockTransfers::WritePage(const UnderWay& load, const std::string& bytes) {
  const absl::Status written = pages_->WritePage(load.group, load.page, bytes);
  if (!written.ok()) {
    LOG(WARNING) << "what the cache service holds is taken for a miss: " << written;
  }
  return written.ok();
}

void BlockTransfers::End(const StoreEnded& message) {
  store_bytes_ -= message.bytes;
  // Full is an answer.
  NoteService(absl::IsResourceExhausted(message.status) ? absl::OkStatus() : message.status);
  if (message.epoch != epoch_ || !under_way_.contains(message.id)) return;
  const bool stored = message.status.ok();
  Finish(message.id, stored ? Done::OUTCOME_DONE : Done::OUTCOME_FAILED,
         stored ? message.bytes : 0);
}

void BlockTransfers::Finish(uint64_t id, Done::Outcome outcome, int64_t bytes) {
  const auto transfer = under_way_.find(id);
  Done& done = ended_.emplace_back();
  done.set_id(id);
  done.set_outcome(outcome);
  done.set_bytes(bytes);
  done.set_duration_us((clock_->MonotonicNs() - transfer->second.start_ns) / 1000);
  under_way_.erase(transfer);
}

void BlockTransfers::Report(v1::StepResult& result) {
  for (Done& done : ended_) *result.add_transfers() = std::move(done);
  ended_.clear();
}

}  // namespace troupe
