#include "worker/host_pages.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<HostPages>> HostPages::Create(SideCopies& copies,
                                                             const std::vector<StateGroup>& groups,
                                                             std::vector<uint32_t> page_count) {
  CHECK_EQ(groups.size(), page_count.size());
  auto pages = std::unique_ptr<HostPages>(new HostPages());
  for (size_t g = 0; g < groups.size(); ++g) {
    pages->offset_.push_back(pages->bytes_);
    pages->page_bytes_.push_back(groups[g].page_bytes);
    pages->bytes_ += groups[g].page_bytes * page_count[g];
  }
  pages->page_count_ = std::move(page_count);
  TROUPE_ASSIGN_OR_RETURN(pages->memory_, copies.AllocateHost(pages->bytes_));
  return pages;
}

absl::StatusOr<std::vector<uint32_t>> PlanHostPages(const std::vector<StateGroup>& groups,
                                                    absl::Span<const uint32_t> device_pages,
                                                    int64_t budget_bytes) {
  double device_bytes = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    device_bytes += static_cast<double>(groups[g].page_bytes) * device_pages[g];
  }
  std::vector<uint32_t> pages;
  for (size_t g = 0; g < groups.size(); ++g) {
    const double share = static_cast<double>(groups[g].page_bytes) * device_pages[g] / device_bytes;
    const double count = share * static_cast<double>(budget_bytes) / groups[g].page_bytes;
    constexpr double kMost = 1U << 31;
    pages.push_back(static_cast<uint32_t>(std::min(count, kMost)));
    if (pages.back() > 0) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "a budget of ", budget_bytes, " bytes in host memory leaves group ", groups[g].name,
        " no page: a page has ", groups[g].page_bytes, " bytes, the group ", device_pages[g],
        " of them on the device, all groups ", static_cast<int64_t>(device_bytes), " bytes there"));
  }
  return pages;
}

}  // namespace troupe
