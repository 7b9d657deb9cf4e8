// A sequence inside the scheduler: its request and how far it is. Private to the scheduler.
//
// Tokens are counted in four marks, in this order:
//   computed <= planned <= length    retired steps computed so many tokens; plans sent cover so
//   many; request.tokens.size() <= length  the sequence has so many, sampled ones in flight
//   included
// A row computes tokens [planned, planned + count); one that reaches `length` samples the next.
#ifndef TROUPE_COORDINATOR_SCHEDULER_LIVE_SEQUENCE_H_
#define TROUPE_COORDINATOR_SCHEDULER_LIVE_SEQUENCE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/fair_share.h"
#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/priority.h"
#include "coordinator/scheduler/replica_info.h"
#include "coordinator/scheduler/sequence.h"

namespace troupe {

struct LiveSequence {
  enum class Phase : uint8_t {
    kHeld,     // a fork whose parent has not computed their common tokens yet
    kWaiting,  // in the queue; holds no page, unless it came with its state
    kLoading,  // holds pages that are being loaded, and no slot
    kRunning,  // holds pages and a slot
  };

  Phase phase = Phase::kWaiting;
  uint32_t slot = 0;
  uint32_t planned = 0;
  uint32_t computed = 0;
  uint32_t samples_in_flight = 0;
  uint32_t limit_tokens = 0;  // generation ends at this length
  uint32_t granted_blocks = 0;
  uint32_t published_blocks = 0;
  uint32_t page_event_at = 0;  // `computed` at which a block is complete or a page leaves a window
  uint64_t last_step = 0;      // the last that uses its pages

  SequenceRequest request;
  Urgency urgency;
  Tenant* tenant = nullptr;
  std::shared_ptr<const std::string> tenant_namespace;
  SequenceFigures figures;
  bool was_admitted = false;

  BlockKey root;
  std::vector<BlockKey> keys;  // of the leading full blocks; empty without use_cache

  // Block -> page for each group, and the first block still held. kNoPageId: behind the window.
  std::array<std::vector<PageId>, kMaxKvGroups> table;
  std::array<uint32_t, kMaxKvGroups> first_held = {};

  std::optional<uint64_t> fork_parent;  // until it is admitted
  std::vector<uint64_t> held_forks;     // its children in kHeld

  uint64_t load_batch = 0;
  uint32_t loads_outstanding = 0;
  std::vector<uint32_t> blocks_loaded;  // bit g of element i: block i of group g was loaded

  uint32_t length() const {
    return static_cast<uint32_t>(request.tokens.size()) + samples_in_flight;
  }
  uint32_t remaining() const { return length() - planned; }
  // Tokens that its client has are to be computed again.
  bool resumes() const {
    return planned < request.tokens.size() && request.tokens.size() > request.prompt_tokens;
  }
};

inline bool MoreUrgent(const LiveSequence* a, const LiveSequence* b) {
  return a->urgency < b->urgency;
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_LIVE_SEQUENCE_H_
