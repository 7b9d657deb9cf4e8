// Runs step plans on a rank: sequences, grants, copies, the forward pass, sampling. What a plan
// moves between the rank and the cache service is BlockTransfers' part.
//
// Thread model: one caller at a time, who blocks while the device computes. Ownership: borrows the
// rank. Errors are InvalidArgument or FailedPrecondition for plans that break the protocol, naming
// what was found and wanted; after one the engine is only good for Reset.
#ifndef TROUPE_WORKER_STEP_ENGINE_H_
#define TROUPE_WORKER_STEP_ENGINE_H_

#include "absl/status/status.h"
#include "base/clock.h"
#include "troupe/v1/worker.pb.h"
#include "worker/plan_check.h"
#include "worker/rank.h"
#include "worker/sampler.h"
#include "worker/sequence_table.h"

namespace troupe {

class StepEngine {
 public:
  StepEngine(Rank* rank, const Clock* clock);

  // Frees every sequence.
  void Reset();

  // The plan's part before its loads: checks all of it, then applies finished, new sequences,
  // grants and copies.
  absl::Status Prepare(const v1::StepPlan& plan);

  // Computes the plan's rows and samples; fills `result` but for epoch, step and transfers.
  absl::Status Compute(const v1::StepPlan& plan, v1::StepResult& result);

  uint32_t live_sequences() const { return sequences_.live(); }

 private:
  absl::Status ApplyGrants(const v1::StepPlan& plan);
  absl::Status ApplyCopies(const v1::StepPlan& plan);
  absl::Status AddRows(const v1::StepPlan& plan);
  void SampleRows(const StepOutput& output, v1::StepResult& result);

  Rank* const rank_;
  const Clock* const clock_;
  const PlanLimits limits_;
  SequenceTable sequences_;
  StepInput input_;
  std::vector<uint32_t> sampling_slots_;  // of the step's rows that sample, in order
  SamplerScratch scratch_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_STEP_ENGINE_H_
