// What goes into a Scheduler and what comes out of it. Plain values; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_SEQUENCE_H_
#define TROUPE_COORDINATOR_SCHEDULER_SEQUENCE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/replica_info.h"
#include "troupe/v1/inference.pb.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// Where the state of a sequence that left a replica lies, for as long as that replica's ranks keep
// their pages: it goes on from there on a replica of the same ranks.
struct KeptState {
  uint64_t epoch = 0;     // of the session that computed it
  uint32_t home = 0;      // and of that session's homes, the sequence's
  uint32_t computed = 0;  // tokens
  // Block -> page for each group; kNoPageId behind a window.
  std::array<std::vector<PageId>, kMaxKvGroups> table;
};

// One generation to run. The caller fills it once; Scheduler::Evacuate gives it back with the
// tokens generated so far, ready to be added to another replica.
struct SequenceRequest {
  uint64_t id = 0;                       // the caller's; unique among the replica's live sequences
  std::vector<uint32_t> tokens;          // prompt, then what was generated before
  uint32_t prompt_tokens = 0;            // how many of `tokens` are the prompt; at least 1
  uint32_t max_output_tokens = 0;        // generated tokens in all; 0: what fits
  std::vector<uint32_t> stop_token_ids;  // generation ends with the first of these

  v1::Sampling sampling;  // resolved: temperature and seed set
  v1::GateSetting gate;   // resolved

  std::string tenant;            // whose fair share pays
  double tenant_weight = 1;      // > 0; a tenant's share is proportional to it
  std::string tenant_namespace;  // separates tenants' cached blocks; derived by the server
  int32_t priority = 0;          // -100..100, larger earlier; orders a tenant's own sequences
  int64_t arrival_us = 0;        // accepted at; the scheduler's time line

  // Reuse and fill cached blocks, the replica's own and the cache service's.
  bool use_cache = true;
  // What the cache service holds of the leading blocks: bit g of element i is set where it has the
  // value of block i in group g (keys: BlockKeys, see block_key.h). Empty: nothing, or not asked.
  std::vector<uint32_t> cached_groups;
  // From Evacuate; what Resume looks at.
  std::optional<KeptState> kept;
};

enum class FinishReason : uint8_t {
  kNone,       // goes on
  kStopToken,  // the token of this event is one of stop_token_ids
  kMaxTokens,  // max_output_tokens are generated
  kDamaged,    // the worker could not sample: the event has no token
};

// A sequence's figures since it was added to this replica.
struct SequenceFigures {
  int64_t admitted_us = 0;           // first given memory at
  uint32_t cached_tokens = 0;        // tokens not computed, thanks to reused blocks
  uint32_t blocks_reused_local = 0;  // found in the replica's memory
  uint32_t blocks_reused_cache = 0;  // loaded from the cache service, in some group
  uint32_t preemptions = 0;
};

// One row of a retired step.
struct SequenceEvent {
  uint64_t sequence = 0;
  uint32_t tokens_computed = 0;  // the row's tokens: a chunk of the prompt, or 1 in decode
  uint32_t heads_skipped = 0;    // gated (layer, head) pairs over those tokens

  bool has_token = false;  // the row sampled
  uint32_t token = 0;
  uint32_t index = 0;           // in the output; consecutive from 0 for the whole generation
  int32_t logprobs_index = -1;  // in StepResult.logprobs; -1: none

  FinishReason finish = FinishReason::kNone;  // otherwise the sequence is gone from the scheduler
  SequenceFigures figures;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_SEQUENCE_H_
