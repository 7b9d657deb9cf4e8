#include "worker/kv_pages.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "worker/device_memory.h"

namespace troupe {
namespace {

int64_t CeilDiv(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

absl::Status OutOfRange(const char* what, uint64_t found, uint64_t limit) {
  return absl::InvalidArgumentError(
      absl::StrCat("KV pages: ", what, " ", found, " is out of range, there are ", limit));
}

KvStream StreamOf(const StateGroup& group, const StateStream& stream, std::byte* memory,
                  DType dtype, bool keys) {
  KvStream view;
  view.base = memory + (keys ? stream.key_offset_bytes : stream.value_offset_bytes);
  view.page_bytes = group.page_bytes;
  view.entries_per_page = group.entries_per_block;
  view.kv_heads = stream.kv_heads;
  view.head_dim = keys ? stream.key_dim : stream.value_dim;
  view.dtype = dtype;
  return view;
}

}  // namespace

KvPages::KvPages(Ops* ops, std::vector<StateGroup> groups, Options options)
    : ops_(ops), groups_(std::move(groups)), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<KvPages>> KvPages::Create(Ops* ops, std::vector<StateGroup> groups,
                                                         Options options) {
  if (groups.empty() || options.page_count.size() != groups.size()) {
    return absl::InvalidArgumentError(absl::StrCat("KV pages: ", options.page_count.size(),
                                                   " page counts for ", groups.size(),
                                                   " state groups"));
  }
  if (options.slots < 1 || options.max_context_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV pages: slots (", options.slots, ") and max_context_tokens (",
                     options.max_context_tokens, ") must be at least 1"));
  }
  auto pages = std::unique_ptr<KvPages>(new KvPages(ops, std::move(groups), std::move(options)));
  pages->blocks_per_slot_ =
      static_cast<int>(CeilDiv(pages->options_.max_context_tokens, kBlockTokens));
  for (size_t g = 0; g < pages->groups_.size(); ++g) {
    Group group;
    auto memory = ops->Allocate(pages->groups_[g].page_bytes * pages->options_.page_count[g]);
    if (!memory.ok()) return memory.status();
    group.memory = *std::move(memory);
    group.table.assign(static_cast<size_t>(pages->options_.slots) * pages->blocks_per_slot_,
                       kUngrantedPage);
    memory = ops->Allocate(static_cast<int64_t>(group.table.size() * sizeof(uint32_t)));
    if (!memory.ok()) return memory.status();
    group.device_table = *std::move(memory);
    pages->SendTable(group, 0, group.table.size());
    group.granted_prefix.assign(pages->options_.slots, 0);
    group.granted_end.assign(pages->options_.slots, 0);
    pages->state_.push_back(std::move(group));
  }
  return pages;
}

int64_t KvPages::bytes() const {
  int64_t bytes = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    bytes += groups_[g].page_bytes * options_.page_count[g];
  }
  return bytes;
}

absl::Status KvPages::Grant(absl::Span<const PageGrant> grants) {
  absl::Status status;
  for (const PageGrant& grant : grants) {
    status = Apply(grant);
    if (!status.ok()) break;
  }
  for (Group& group : state_) SendGranted(group);
  return status;
}

absl::Status KvPages::Apply(const PageGrant& grant) {
  if (grant.group >= groups_.size()) return OutOfRange("group", grant.group, groups_.size());
  if (grant.slot >= static_cast<uint32_t>(options_.slots)) {
    return OutOfRange("slot", grant.slot, slots());
  }
  if (grant.block >= static_cast<uint32_t>(blocks_per_slot_)) {
    return OutOfRange("block", grant.block, blocks_per_slot_);
  }
  if (grant.page >= page_count(grant.group)) {
    return OutOfRange("page", grant.page, page_count(grant.group));
  }
  Group& state = state_[grant.group];
  const size_t first = static_cast<size_t>(grant.slot) * blocks_per_slot_;
  uint32_t* blocks = &state.table[first];
  blocks[grant.block] = grant.page;
  state.unsent.push_back(first + grant.block);
  state.granted_end[grant.slot] = std::max(state.granted_end[grant.slot], grant.block + 1);
  uint32_t& prefix = state.granted_prefix[grant.slot];
  while (prefix < state.granted_end[grant.slot] && blocks[prefix] != kUngrantedPage) ++prefix;
  return absl::OkStatus();
}

void KvPages::SendGranted(Group& group) {
  // A copy costs as much as so many entries more of one; and larger ones are waited for.
  constexpr size_t kWorthACopy = 1024;
  constexpr size_t kMostEntries = 16384;
  std::vector<size_t>& unsent = group.unsent;
  std::sort(unsent.begin(), unsent.end());
  for (size_t i = 0; i < unsent.size();) {
    const size_t first = unsent[i];
    size_t last = first;
    for (; i < unsent.size(); ++i) {
      if (unsent[i] - last > kWorthACopy || unsent[i] - first >= kMostEntries) break;
      last = unsent[i];
    }
    SendTable(group, first, last - first + 1);
  }
  unsent.clear();
}

absl::Status KvPages::ReleaseSlot(uint32_t slot) {
  if (slot >= static_cast<uint32_t>(options_.slots)) return OutOfRange("slot", slot, slots());
  for (Group& state : state_) {
    auto first = state.table.begin() + static_cast<int64_t>(slot) * blocks_per_slot_;
    std::fill(first, first + state.granted_end[slot], kUngrantedPage);
    SendTable(state, static_cast<size_t>(slot) * blocks_per_slot_, state.granted_end[slot]);
    state.granted_prefix[slot] = 0;
    state.granted_end[slot] = 0;
  }
  return absl::OkStatus();
}

absl::Status KvPages::CopyPages(uint32_t group, absl::Span<const uint32_t> from,
                                absl::Span<const uint32_t> to) {
  if (group >= groups_.size()) return OutOfRange("group", group, groups_.size());
  if (from.size() != to.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV pages: a copy from ", from.size(), " pages to ", to.size()));
  }
  for (size_t i = 0; i < from.size(); ++i) {
    const uint32_t highest = std::max(from[i], to[i]);
    if (highest >= page_count(group)) return OutOfRange("page", highest, page_count(group));
    if (std::find(from.begin(), from.end(), to[i]) != from.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("KV pages: page ", to[i], " of group ", groups_[group].name,
                       " is both source and destination of one copy"));
    }
  }
  PageCopyParams params;
  params.pages = state_[group].memory.get();
  params.page_bytes = groups_[group].page_bytes;
  params.count = static_cast<int>(from.size());
  params.from = Staged(*ops_, from.data(), params.count);
  params.to = Staged(*ops_, to.data(), params.count);
  ops_->PageCopy(params);
  return absl::OkStatus();
}

absl::Status KvPages::CheckRow(uint32_t slot, int64_t start, int64_t count) const {
  if (slot >= static_cast<uint32_t>(options_.slots)) return OutOfRange("slot", slot, slots());
  if (start < 0 || count < 1 || start > options_.max_context_tokens - count) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV pages: tokens [", start, ", ", start + count, ") of slot ", slot,
                     " lie outside the context of ", options_.max_context_tokens));
  }
  const int64_t last_block = (start + count - 1) / kBlockTokens;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const StateGroup& group = groups_[g];
    int64_t missing = -1;
    if (group.kind == StateGroupKind::kWindow) {
      const uint32_t* blocks = &state_[g].table[static_cast<size_t>(slot) * blocks_per_slot_];
      int64_t block = std::max<int64_t>(0, start - group.window_tokens + 1) / kBlockTokens;
      while (block <= last_block && blocks[block] != kUngrantedPage) ++block;
      if (block <= last_block) missing = block;
    } else if (state_[g].granted_prefix[slot] <= last_block) {
      missing = state_[g].granted_prefix[slot];
    }
    if (missing >= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "KV pages: tokens [", start, ", ", start + count, ") of slot ", slot, " need block ",
          missing, " of group ", group.name, ", which was never granted"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<std::byte>> KvPages::Page(uint32_t group, uint32_t page) {
  if (group >= groups_.size()) return OutOfRange("group", group, groups_.size());
  if (page >= page_count(group)) return OutOfRange("page", page, page_count(group));
  const int64_t page_bytes = groups_[group].page_bytes;
  return absl::MakeSpan(state_[group].memory.get() + page * page_bytes, page_bytes);
}

absl::StatusOr<std::string> KvPages::ReadPage(uint32_t group, uint32_t page) {
  const auto bytes = Page(group, page);
  if (!bytes.ok()) return bytes.status();
  const auto fetched = Fetched(*ops_, *bytes);
  ops_->Synchronize();
  if (!ops_->status().ok()) return ops_->status();
  return std::string(reinterpret_cast<const char*>(fetched.data()), fetched.size());
}

absl::Status KvPages::WritePage(uint32_t group, uint32_t page, absl::string_view bytes) {
  const auto to = Page(group, page);
  if (!to.ok()) return to.status();
  if (bytes.size() != to->size()) {
    return absl::InvalidArgumentError(absl::StrCat("KV pages: found ", bytes.size(),
                                                   " bytes for a page of group ",
                                                   groups_[group].name, ", wanted ", to->size()));
  }
  ops_->Upload(to->data(), bytes.data(), static_cast<int64_t>(bytes.size()));
  return ops_->status();
}

void KvPages::SendTable(Group& group, size_t first, size_t count) {
  ops_->Upload(group.device_table.get() + first * sizeof(uint32_t), group.table.data() + first,
               static_cast<int64_t>(count * sizeof(uint32_t)));
}

KvLocation KvPages::Locate(int layer, KvBranch branch) const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (const StateStream& stream : groups_[g].streams) {
      if (stream.layer != layer || stream.branch != branch) continue;
      std::byte* memory = state_[g].memory.get();
      return {StreamOf(groups_[g], stream, memory, options_.dtype, /*keys=*/true),
              StreamOf(groups_[g], stream, memory, options_.dtype, /*keys=*/false),
              {reinterpret_cast<const uint32_t*>(state_[g].device_table.get()), blocks_per_slot_}};
    }
  }
  CHECK(false) << "no state group holds branch " << static_cast<int>(branch) << " of layer "
               << layer;
}

int64_t WindowBlocks(const StateGroup& group) {
  return CeilDiv(group.window_tokens - 1, kBlockTokens) + 1;
}

int64_t BytesPerToken(const StateGroup& group) { return group.page_bytes / kBlockTokens; }

absl::StatusOr<std::vector<uint32_t>> PlanPages(const std::vector<StateGroup>& groups,
                                                const PagePlanOptions& options) {
  // A kept prefix can be joined where every group has its pages; we afford the window groups one
  // such place for every so many blocks of the other groups.
  constexpr int64_t kBlocksPerJoint = 16;
  const int64_t context_blocks = CeilDiv(options.max_context_tokens, kBlockTokens);
  int64_t needed_bytes = 0;
  int64_t unit_bytes = 0;  // of kBlocksPerJoint blocks in all groups
  std::vector<int64_t> needed;
  std::vector<int64_t> unit;
  for (const StateGroup& group : groups) {
    if (group.kind == StateGroupKind::kWindow) {
      // One more a sequence: the next block is granted before the window leaves the last one.
      needed.push_back(options.sequences * (WindowBlocks(group) + 1) +
                       CeilDiv(options.step_tokens, kBlockTokens));
      unit.push_back(std::min(kBlocksPerJoint, WindowBlocks(group)));
    } else {
      needed.push_back(std::max<int64_t>(context_blocks, options.sequences));
      unit.push_back(kBlocksPerJoint);
    }
    needed_bytes += needed.back() * group.page_bytes;
    unit_bytes += unit.back() * group.page_bytes;
  }
  if (needed_bytes > options.budget_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("KV budget of ", options.budget_bytes, " bytes is too small: one sequence of ",
                     options.max_context_tokens, " tokens and the windows of ", options.sequences,
                     " sequences need ", needed_bytes,
                     " bytes; raise the budget or lower the context or the number of sequences"));
  }
  // Divided before multiplying would waste up to a unit; units are megabytes, so go by the page.
  const int64_t left = options.budget_bytes - needed_bytes;
  std::vector<uint32_t> pages;
  for (size_t g = 0; g < groups.size(); ++g) {
    const double share = static_cast<double>(left) * unit[g] / static_cast<double>(unit_bytes);
    const int64_t count = needed[g] + static_cast<int64_t>(share);
    pages.push_back(static_cast<uint32_t>(std::min<int64_t>(count, kUngrantedPage - 1)));
  }
  return pages;
}

}  // namespace troupe
