// A replica's KV pages and what they carry: the pools of all groups, on the device and in host
// memory, and the prefix index over them.
//
// A block whose device page is needed for something else goes to a page in host memory, if there is
// one and the caller finds that worth it: a spill, which the next plan must carry. From there it is
// filled into a device page when it is wanted again. Host memory keeps what was used last.
//
// Not thread-safe. Invariants: an index entry's page is exactly a page attached to that entry; a
// page handed out for new content carries nothing; a host page is held while its spill has not been
// sent or a fill reads it, and is given to nobody else then.
#ifndef TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_
#define TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/prefix_index.h"
#include "coordinator/scheduler/replica_info.h"

namespace troupe {

class KvMemory {
 public:
  // What a device page holds is to be in a host page before the former is written to.
  struct Spill {
    uint32_t group = 0;
    PageId page = kNoPageId;
    PageId host_page = kNoPageId;
  };

  explicit KvMemory(const ReplicaInfo& replica);

  uint32_t group_count() const { return static_cast<uint32_t>(pools_.size()); }
  const PagePool& pool(uint32_t group) const { return pools_[group]; }
  const PagePool& host_pool(uint32_t group) const { return host_pools_[group]; }

  // One page of each group is available; or will be, once the steps in flight have retired.
  bool HasBlock() const;
  bool WillHaveBlock() const;

  // REQUIRES: the group has a page available.
  PageId Allocate(uint32_t group);
  // As PagePool::Take.
  void Take(uint32_t group, PageId page) { pools_[group].Take(page); }
  void Ref(uint32_t group, PageId page) { pools_[group].Ref(page); }
  void Unref(uint32_t group, PageId page, uint64_t last_step) {
    pools_[group].Unref(page, last_step);
  }
  void Retire(uint64_t step);

  // Whether blocks that lose their page are spilled from now on.
  void SetSpilling(bool spills) { spills_ = spills; }
  bool has_spills() const { return !pending_.empty(); }
  // Those that were not taken yet and that `is_due`, in order; they are about to be sent.
  std::vector<Spill> TakeSpills(absl::FunctionRef<bool(const Spill&)> is_due);
  // One more, or one less, who counts on what a host page holds. REQUIRES, of Ref: it carries a
  // block.
  void RefHost(uint32_t group, PageId page) { host_pools_[group].Ref(page); }
  void UnrefHost(uint32_t group, PageId page) { host_pools_[group].Unref(page, /*last_step=*/0); }

  // `page` of `group` holds the block's final content. If the block has a page already, this one
  // stays private to its holders.
  PrefixEntry& Publish(const BlockKey& key, uint32_t group, PageId page);
  PrefixEntry* Find(const BlockKey& key) { return index_.Find(key); }
  const PrefixEntry* Find(const BlockKey& key) const { return index_.Find(key); }
  // Bit g: the block is in the device memory of group g.
  uint32_t Held(const BlockKey& key) const;
  // Likewise, or in its host memory.
  uint32_t HeldAnywhere(const BlockKey& key) const;

 private:
  void MoveToHost(PrefixEntry& entry, uint32_t group);

  std::vector<PagePool> pools_;
  std::vector<PagePool> host_pools_;
  PrefixIndex index_;
  std::vector<Spill> pending_;
  bool spills_ = true;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_KV_MEMORY_H_
