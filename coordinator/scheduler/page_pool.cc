#include "coordinator/scheduler/page_pool.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace troupe {

PagePool::PagePool(uint32_t page_count) : pages_(page_count + 1) {
  pages_.back().previous = pages_.back().next = page_count;
  free_.reserve(page_count);
  for (PageId page = page_count; page-- > 0;) free_.push_back(page);
}

PageId PagePool::Allocate(PrefixEntry** evicted) {
  CHECK(available() > 0);
  *evicted = nullptr;
  PageId page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = pages_.back().next;
    Unlink(page);
    *evicted = pages_[page].entry;
    pages_[page].entry = nullptr;
  }
  pages_[page].refs = 1;
  return page;
}

void PagePool::Take(PageId page) {
  if (pages_[page].refs++ > 0) return;
  // Before the first allocation the free pages stand in descending order.
  const auto found = std::lower_bound(free_.begin(), free_.end(), page, std::greater<PageId>());
  CHECK(found != free_.end() && *found == page) << "page " << page;
  free_.erase(found);
}

void PagePool::Ref(PageId id) {
  Page& page = pages_[id];
  if (page.refs == 0) {
    CHECK(page.entry != nullptr) << "page " << id << " carries nothing to share";
    if (InList(id)) Unlink(id);
    if (page.is_cooling) {
      page.is_cooling = false;
      --cooling_;
    }
  }
  ++page.refs;
}

void PagePool::Unref(PageId id, uint64_t last_step) {
  Page& page = pages_[id];
  CHECK(page.refs > 0) << "page " << id;
  page.last_step = std::max(page.last_step, last_step);
  if (--page.refs > 0) return;
  if (page.last_step <= retired_step_) {
    Settle(id);
    return;
  }
  page.is_cooling = true;
  ++cooling_;
  cooling_pages_.push_back(id);
}

void PagePool::Attach(PageId id, PrefixEntry* entry) {
  Page& page = pages_[id];
  CHECK(page.refs > 0 && page.entry == nullptr) << "page " << id;
  page.entry = entry;
}

void PagePool::Retire(uint64_t step) {
  retired_step_ = step;
  std::erase_if(cooling_pages_, [&](PageId id) {
    Page& page = pages_[id];
    if (!page.is_cooling) return true;
    if (page.last_step > step) return false;
    page.is_cooling = false;
    --cooling_;
    Settle(id);
    return true;
  });
}

void PagePool::Settle(PageId page) {
  if (pages_[page].entry != nullptr) {
    Link(page);
  } else {
    free_.push_back(page);
  }
}

void PagePool::Link(PageId page) {
  const PageId head = total();
  pages_[page].previous = pages_[head].previous;
  pages_[page].next = head;
  pages_[pages_[head].previous].next = page;
  pages_[head].previous = page;
  ++cached_;
}

void PagePool::Unlink(PageId id) {
  Page& page = pages_[id];
  pages_[page.previous].next = page.next;
  pages_[page.next].previous = page.previous;
  page.previous = page.next = kNoPageId;
  --cached_;
}

}  // namespace troupe
