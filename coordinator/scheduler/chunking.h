// How many prompt tokens a step computes, and of whom.
//
// Pure functions; any thread.
#ifndef TROUPE_COORDINATOR_SCHEDULER_CHUNKING_H_
#define TROUPE_COORDINATOR_SCHEDULER_CHUNKING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/scheduler/step_pace.h"

namespace troupe {

struct PrefillLimits {
  uint32_t max_step_tokens = 0;      // rows of all kinds
  uint32_t mixed_tokens = 0;         // prompt tokens beside decode rows
  int64_t mixed_us = 0;              // the time that those may add to a step
  uint32_t min_chunk_tokens = 0;     // worth a row
  double prefill_tokens_per_us = 0;  // of whole prompts, measured; 0: not yet
  StepPace pace;                     // of steps that also decode
};

// Prompt tokens that a step with so many decode rows, while so many prompts wait, may hold. Alone,
// a step is as large as it can be. Beside decode rows prompts may add `mixed_us`, or as much as
// decoding takes anyway, whichever is more; and that times the prompts that wait over the rows that
// decode where they are more, since a wait for the first token counts as one for the next. So a
// long prompt leaves many others' latency nearly as it was, and one sequence does not hold up many
// prompts.
uint32_t PrefillBudget(const PrefillLimits& limits, uint32_t decode_rows, uint32_t prompts);

// Shares a budget among prompts by what each has left, given most urgent first; one chunk each.
// Max-min fair: a prompt with less left than an equal share is finished and what it leaves goes to
// the others, so short prompts are never behind long ones. No chunk but a prompt's last is smaller
// than `min_chunk`, unless the budget is; when there are too many prompts for that, the most urgent
// one and then the shortest take part, so nobody waits for ever.
std::vector<uint32_t> ShareBudget(uint32_t budget, uint32_t min_chunk,
                                  absl::Span<const uint32_t> remaining);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_CHUNKING_H_
