#include "coordinator/scheduler/replica_info.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

absl::Status Bad(const v1::WorkerInfo& info, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("worker '", info.worker(), "' announced ", what, "; is its version ours?"));
}

absl::StatusOr<KvGroupInfo> GroupFrom(const v1::WorkerInfo& info, const v1::KvGroup& group) {
  const std::string name = absl::StrCat("KV group '", group.name(), "' ");
  const bool window = group.kind() == v1::KvGroup::KIND_WINDOW;
  if (!window && group.kind() != v1::KvGroup::KIND_FULL &&
      group.kind() != v1::KvGroup::KIND_COMPRESSED) {
    return Bad(info, absl::StrCat(name, "of unknown kind ", group.kind()));
  }
  if (group.page_count() == 0) return Bad(info, name + "without pages");
  if (window && group.window_tokens() == 0) return Bad(info, name + "without window_tokens");
  return KvGroupInfo{.name = group.name(),
                     .window_tokens = window ? group.window_tokens() : 0,
                     .page_bytes = group.page_bytes(),
                     .page_count = group.page_count(),
                     .host_page_count = group.host_page_count()};
}

}  // namespace

absl::StatusOr<ReplicaInfo> ReplicaInfo::From(const v1::WorkerInfo& info) {
  if (info.identity().size() != 32) {
    return Bad(info, absl::StrCat("an identity of ", info.identity().size(), " bytes, not 32"));
  }
  if (info.block_tokens() == 0) return Bad(info, "block_tokens 0");
  if (info.max_rows() == 0) return Bad(info, "max_rows 0");
  if (info.max_step_tokens() == 0) return Bad(info, "max_step_tokens 0");
  if (info.max_context() < 2) return Bad(info, "max_context under 2");
  if (info.groups().empty() || info.groups_size() > static_cast<int>(kMaxKvGroups)) {
    return Bad(info, absl::StrCat(info.groups_size(), " KV groups, not 1 to ", kMaxKvGroups));
  }
  ReplicaInfo replica = {.worker = info.worker(),
                         .identity = info.identity(),
                         .block_tokens = info.block_tokens(),
                         .max_rows = info.max_rows(),
                         .max_step_tokens = info.max_step_tokens(),
                         .max_context = info.max_context(),
                         .has_cache = !info.cache_address().empty()};
  for (const v1::KvGroup& group : info.groups()) {
    absl::StatusOr<KvGroupInfo> made = GroupFrom(info, group);
    if (!made.ok()) return made.status();
    replica.groups.push_back(*std::move(made));
  }
  return replica;
}

uint32_t ReplicaInfo::PagesNeeded(uint32_t group, uint32_t tokens) const {
  const uint32_t blocks = (tokens + block_tokens - 1) / block_tokens;
  const uint32_t window = groups[group].window_tokens;
  if (window == 0) return blocks;
  // The window before a block's first token, and that token's block.
  return std::min(blocks, (window - 1 + block_tokens - 1) / block_tokens + 1);
}

}  // namespace troupe
