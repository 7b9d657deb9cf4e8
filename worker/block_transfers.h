// Moves pages between a rank and the cache service, beside the steps.
//
// A load's bytes come as a message to the owner, between two steps, and reach the page only if they
// are whole; a store's bytes are copied when it starts. So no step ever waits for the cache, and no
// callback touches a page.
//
// Thread model: one owner, the ExecutorActor; callbacks of the client tell it LoadEnded and
// StoreEnded. Ownership: borrows pages and client, which outlive it.
#ifndef TROUPE_WORKER_BLOCK_TRANSFERS_H_
#define TROUPE_WORKER_BLOCK_TRANSFERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/actor.h"
#include "base/clock.h"
#include "cache_client/cache_client.h"
#include "troupe/v1/worker.pb.h"
#include "worker/kv_pages.h"
#include "worker/messages.h"

namespace troupe {

class BlockTransfers {
 public:
  struct Config {
    size_t max_under_way = 256;                    // loads and stores; more fail at once
    int64_t max_store_bytes = int64_t{256} << 20;  // that are being uploaded; more fail at once
  };

  // Without a cache service `client` is null: loads miss and stores fail.
  BlockTransfers(const Config& config, KvPages* pages, CacheClient* client, std::string identity,
                 const Clock* clock);

  // Forgets what is under way: it belongs to a session that is over.
  void Reset(uint64_t epoch);

  // Indices and keys were checked. FailedPrecondition: an id is under way already.
  absl::Status StartLoads(const v1::StepPlan& plan, const ActorRef<ExecutorMessage>& owner);
  absl::Status StartStores(const v1::StepPlan& plan, const ActorRef<ExecutorMessage>& owner);

  void End(LoadEnded message);
  void End(const StoreEnded& message);

  // Adds what has ended since the last call.
  void Report(v1::StepResult& result);

 private:
  struct UnderWay {
    uint32_t group = 0;
    uint32_t page = 0;
    int64_t start_ns = 0;
  };

  absl::Status Begin(const v1::BlockTransfer& transfer);
  void Finish(uint64_t id, v1::TransferDone::Outcome outcome, int64_t bytes);
  // Says so when the cache service stops or starts to answer.
  void NoteService(const absl::Status& status);
  bool WritePage(const UnderWay& load, const std::string& bytes);

  const Config config_;
  KvPages* const pages_;
  CacheClient* const client_;
  const std::string identity_;
  const Clock* const clock_;
  uint64_t epoch_ = 0;
  absl::flat_hash_map<uint64_t, UnderWay> under_way_;
  bool service_fails_ = false;
  int64_t store_bytes_ = 0;  // being uploaded, of sessions that are over as well
  std::vector<v1::TransferDone> ended_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_BLOCK_TRANSFERS_H_
