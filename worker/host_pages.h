// The pages of a rank's state groups in host memory: places that device pages are moved to and from
// whole. What lies in them, and which are free, is the coordinator's to know.
//
// Thread model: as KvPages. Ownership: owns the memory, which is pinned where the device is not the
// host. Invariants: a group has as many pages as PlanHostPages said, each of its page's bytes.
#ifndef TROUPE_WORKER_HOST_PAGES_H_
#define TROUPE_WORKER_HOST_PAGES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/side_copies.h"
#include "model/description.h"

namespace troupe {

class HostPages {
 public:
  // ResourceExhausted when memory is short, or cannot be pinned.
  static absl::StatusOr<std::unique_ptr<HostPages>> Create(SideCopies& copies,
                                                           const std::vector<StateGroup>& groups,
                                                           std::vector<uint32_t> page_count);

  uint32_t page_count(uint32_t group) const { return page_count_[group]; }
  int64_t bytes() const { return bytes_; }
  // REQUIRES: group and page are there.
  std::byte* Page(uint32_t group, uint32_t page) const {
    return memory_.get() + offset_[group] + page * page_bytes_[group];
  }

 private:
  HostPages() = default;

  std::shared_ptr<std::byte> memory_;
  int64_t bytes_ = 0;
  std::vector<uint32_t> page_count_;
  std::vector<int64_t> page_bytes_;
  std::vector<int64_t> offset_;  // of each group's first page
};

// Host pages for each group out of a byte budget, in the proportion of its device pages, so that
// groups run full together; a pure function. ResourceExhausted, with the arithmetic, where that
// leaves a group without a page.
absl::StatusOr<std::vector<uint32_t>> PlanHostPages(const std::vector<StateGroup>& groups,
                                                    absl::Span<const uint32_t> device_pages,
                                                    int64_t budget_bytes);

}  // namespace troupe

#endif  // TROUPE_WORKER_HOST_PAGES_H_
