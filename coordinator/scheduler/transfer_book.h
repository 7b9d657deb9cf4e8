// Blocks that wait to be moved between worker and cache service, or from the worker's host memory
// back to its device, and those under way.
//
// Not thread-safe. Holds no page references of its own: the scheduler pins a page when its transfer
// starts and lets go when it ended.
#ifndef TROUPE_COORDINATOR_SCHEDULER_TRANSFER_BOOK_H_
#define TROUPE_COORDINATOR_SCHEDULER_TRANSFER_BOOK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/page_pool.h"

namespace troupe {

struct Transfer {
  BlockKey key;
  std::shared_ptr<const std::string> tenant_namespace;
  uint32_t group = 0;
  PageId page = kNoPageId;       // of a store: found when it starts
  uint64_t load_batch = 0;       // the loads of one sequence's admission; 0: a store
  uint32_t block = 0;            // of a load: in its sequence
  PageId host_page = kNoPageId;  // of a fill, which is a load that comes from there

  bool is_load() const { return load_batch != 0; }
  bool is_fill() const { return host_page != kNoPageId; }
};

class TransferBook {
 public:
  void AddLoad(Transfer load) { loads_.push_back(std::move(load)); }
  // The store that had to make room, if any: the oldest beyond `max_waiting`.
  std::optional<Transfer> AddStore(Transfer store, uint32_t max_waiting);
  // Forgets the loads of a batch that have not started: these.
  std::vector<Transfer> DropLoads(uint64_t batch);
  // Loads that have not started.
  const std::deque<Transfer>& waiting_loads() const { return loads_; }

  // The next to start: all loads before any store.
  std::optional<Transfer> TakeWaiting();

  // Puts a transfer under way; the id names it to the worker.
  uint64_t Start(Transfer transfer);
  bool IsUnderWay(uint64_t id) const { return under_way_.contains(id); }
  // REQUIRES: IsUnderWay(id).
  Transfer End(uint64_t id);

  bool has_waiting() const { return !loads_.empty() || !stores_.empty(); }
  uint32_t under_way() const { return static_cast<uint32_t>(under_way_.size()); }

 private:
  std::deque<Transfer> loads_;
  std::deque<Transfer> stores_;
  absl::flat_hash_map<uint64_t, Transfer> under_way_;
  uint64_t last_id_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_TRANSFER_BOOK_H_
