// The pages of one KV group: who holds them, which still carry a reusable prefix, which are free.
//
// A page is held while its reference count is above zero. When the last holder lets go of it, a
// page that carries a published block is kept, reusable, in the order of release (LRU), until it is
// needed for something else; any other page is free. A page that a step in flight may still touch
// cools first: it can be shared again, but is not handed out for new content before that step
// retired.
//
// Not thread-safe. Owns no memory: pages are numbers that the worker gave meaning to.
#ifndef TROUPE_COORDINATOR_SCHEDULER_PAGE_POOL_H_
#define TROUPE_COORDINATOR_SCHEDULER_PAGE_POOL_H_

#include <cstdint>
#include <vector>

namespace troupe {

using PageId = uint32_t;
inline constexpr PageId kNoPageId = UINT32_MAX;

struct PrefixEntry;

class PagePool {
 public:
  explicit PagePool(uint32_t page_count);

  // A page with one reference. If `*evicted` is set afterwards, that entry has lost its page.
  // REQUIRES: available() > 0.
  PageId Allocate(PrefixEntry** evicted);

  // One more holder of that very page, which may be free, and means what it meant to another pool.
  // REQUIRES: nothing was allocated yet.
  void Take(PageId page);

  // One more holder of a page that is held or still carries its block.
  void Ref(PageId page);

  // One holder less; its last use was in step `last_step`.
  void Unref(PageId page, uint64_t last_step);

  // The page carries this entry's block from now on. REQUIRES: it is held and carries none.
  void Attach(PageId page, PrefixEntry* entry);

  // All steps up to `step` have ended.
  void Retire(uint64_t step);

  uint32_t refs(PageId page) const { return pages_[page].refs; }
  // Pages that Allocate can give now, and those that it will be able to once steps retire.
  uint32_t available() const { return static_cast<uint32_t>(free_.size()) + cached_; }
  uint32_t cooling() const { return cooling_; }
  uint32_t cached() const { return cached_; }
  uint32_t total() const { return static_cast<uint32_t>(pages_.size()) - 1; }
  // Held, or cooling.
  uint32_t used() const { return total() - available(); }

 private:
  struct Page {
    uint32_t refs = 0;
    bool is_cooling = false;
    PageId previous = kNoPageId;  // in the LRU list, while cached
    PageId next = kNoPageId;
    uint64_t last_step = 0;
    PrefixEntry* entry = nullptr;
  };

  bool InList(PageId page) const { return pages_[page].next != kNoPageId; }
  void Link(PageId page);
  void Unlink(PageId page);
  void Settle(PageId page);

  // The last element is the list's head: its next is the page released longest ago.
  std::vector<Page> pages_;
  std::vector<PageId> free_;
  std::vector<PageId> cooling_pages_;  // and pages that were taken up again since
  uint32_t cached_ = 0;
  uint32_t cooling_ = 0;
  uint64_t retired_step_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_PAGE_POOL_H_
