// What can be said about a step plan without knowing the sequences: columns of equal length,
// indices in range, counts within what the worker announced.
//
// Thread model: a pure function. What depends on the sequences is SequenceTable's to check, and
// what depends on pages that were granted, KvPages'.
#ifndef TROUPE_WORKER_PLAN_CHECK_H_
#define TROUPE_WORKER_PLAN_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

struct PlanLimits {
  uint32_t max_rows = 0;             // in a plan, and sequences that live at once
  uint32_t max_step_tokens = 0;      // in a plan
  std::vector<uint32_t> page_count;  // [groups]
};

// InvalidArgument naming the field, what was found and what was wanted.
absl::Status CheckPlan(const v1::StepPlan& plan, const PlanLimits& limits);

}  // namespace troupe

#endif  // TROUPE_WORKER_PLAN_CHECK_H_
