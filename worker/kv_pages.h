// The physical pages of every state group on one rank, and the block tables that name them.
//
// The coordinator decides which page is which block; KvPages only remembers it, refuses what lies
// outside its arrays, and tells kernels where things are. A page holds one block (kBlockTokens
// tokens) of all the streams of its group, in the layout of model/description.h.
//
// Thread model: one caller at a time, the one that owns the Ops.
// Ownership: owns page memory and tables; borrows the Ops, which must outlive it. Streams and
// tables handed out stay valid, and stay put, for the life of the KvPages.
// Invariants: a table entry is kUngrantedPage or below the group's page count; CheckRow() is what
// stands between a wrong plan and memory that is not the sequence's.
#ifndef TROUPE_WORKER_KV_PAGES_H_
#define TROUPE_WORKER_KV_PAGES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/ops.h"
#include "model/description.h"

namespace troupe {

// A table entry without a page.
inline constexpr uint32_t kUngrantedPage = 0xffffffffU;

// Where one branch of one layer keeps its keys and values.
struct KvLocation {
  KvStream k;
  KvStream v;
  BlockTables tables;
};

// `page` becomes block `block` of `group` of the sequence in `slot`, in place of what was there.
struct PageGrant {
  uint32_t slot = 0;
  uint32_t group = 0;
  uint32_t block = 0;
  uint32_t page = 0;
};

class KvPages {
 public:
  struct Options {
    DType dtype = DType::kF32;         // of keys and values; the groups' sizes were made for it
    std::vector<uint32_t> page_count;  // [groups], see PlanPages
    int slots = 0;                     // sequences that may live at once
    int max_context_tokens = 0;        // tokens a sequence may reach
  };

  // InvalidArgument when options and groups disagree; ResourceExhausted when memory is short.
  static absl::StatusOr<std::unique_ptr<KvPages>> Create(Ops* ops, std::vector<StateGroup> groups,
                                                         Options options);

  const std::vector<StateGroup>& groups() const { return groups_; }
  DType dtype() const { return options_.dtype; }
  int slots() const { return options_.slots; }
  int max_context_tokens() const { return options_.max_context_tokens; }
  int blocks_per_slot() const { return blocks_per_slot_; }
  uint32_t page_count(int group) const { return options_.page_count[group]; }
  // Memory of all pages.
  int64_t bytes() const;

  // In order. InvalidArgument, naming the index and its limit, when one is out of range; those
  // after it are not applied.
  absl::Status Grant(absl::Span<const PageGrant> grants);
  absl::Status Grant(const PageGrant& grant) { return Grant(absl::MakeConstSpan(&grant, 1)); }

  // Forgets every block of the slot. Its pages are untouched.
  absl::Status ReleaseSlot(uint32_t slot);

  // Copies whole pages inside a group. No page may be both in `from` and in `to`.
  absl::Status CopyPages(uint32_t group, absl::Span<const uint32_t> from,
                         absl::Span<const uint32_t> to);

  // FailedPrecondition, naming group and block, when tokens [start, start + count) of the slot's
  // sequence cannot run because a block that they read or write was never granted. Constant in the
  // length of the context.
  absl::Status CheckRow(uint32_t slot, int64_t start, int64_t count) const;

  // One page, `page_bytes` of its group, in device memory.
  absl::StatusOr<absl::Span<std::byte>> Page(uint32_t group, uint32_t page);
  // Its bytes, for transfers; waits for the device.
  absl::StatusOr<std::string> ReadPage(uint32_t group, uint32_t page);
  // InvalidArgument unless there are exactly as many bytes as the page has.
  absl::Status WritePage(uint32_t group, uint32_t page, absl::string_view bytes);

  // The layer's branch; CHECK-fails when no group has such a stream.
  KvLocation Locate(int layer, KvBranch branch) const;

 private:
  struct Group {
    Buffer memory;
    std::vector<uint32_t> table;           // [slots, blocks_per_slot]
    Buffer device_table;                   // the same, as operations read it
    std::vector<uint32_t> granted_prefix;  // [slots] leading blocks that have a page
    std::vector<uint32_t> granted_end;     // [slots] one past the last block that has one
    std::vector<size_t> unsent;            // entries of `table` that operations do not see yet
  };

  KvPages(Ops* ops, std::vector<StateGroup> groups, Options options);
  absl::Status Apply(const PageGrant& grant);
  // Shows operations what Apply has changed, in few copies.
  void SendGranted(Group& group);
  // Shows operations `count` entries of a table, from `first` on.
  void SendTable(Group& group, size_t first, size_t count);

  Ops* ops_;
  std::vector<StateGroup> groups_;
  Options options_;
  int blocks_per_slot_ = 0;
  std::vector<Group> state_;
};

struct PagePlanOptions {
  int64_t budget_bytes = 0;
  int max_context_tokens = 0;
  int sequences = 1;      // expected to be live at once
  int step_tokens = 512;  // the longest step: its tokens hold window pages until it has run
};

// Pages for each group out of a byte budget, a pure function. Every sequence gets its windows and
// the longest context fits at least once; what is left goes to all groups so that a prefix which is
// kept for reuse also finds window pages at the blocks where one may join it. ResourceExhausted,
// with the arithmetic, when the budget is too small for that.
absl::StatusOr<std::vector<uint32_t>> PlanPages(const std::vector<StateGroup>& groups,
                                                const PagePlanOptions& options);

// Blocks of a window group that a token needs at once, the worst place in a block assumed.
int64_t WindowBlocks(const StateGroup& group);

// Bytes that one token adds to the group while it is kept.
int64_t BytesPerToken(const StateGroup& group);

}  // namespace troupe

#endif  // TROUPE_WORKER_KV_PAGES_H_
