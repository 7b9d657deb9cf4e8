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
  // CHECK-fails where the device has no memory for a few bytes.
  StepEngine(Rank* rank, const Clock* clock);

  // Frees every sequence.
  void Reset();

  // The plan's part before its loads: checks all of it, then applies finished, new sequences,
  // grants and copies.
  absl::Status Prepare(const v1::StepPlan& plan);

  // Computes the plan's rows and samples; fills `result` but for epoch, step and transfers. A rank
  // of several joins the step where any home has rows; ranks of the last stage sample, and the
  // others learn from them which tokens came.
  absl::Status Compute(const v1::StepPlan& plan, v1::StepResult& result);

  uint32_t live_sequences() const { return sequences_.live(); }

 private:
  absl::Status ApplyGrants(const v1::StepPlan& plan);
  absl::Status ApplyCopies(const v1::StepPlan& plan);
  void CountExperts(absl::Span<const int32_t> tokens, v1::StepResult& result);
  absl::Status AddRows(const v1::StepPlan& plan);
  void SampleRows(const StepOutput& output, v1::StepResult& result);
  // Between stages, the tokens of sampling_slots_ in order.
  void SendTokens(const v1::StepResult& result);
  void ReceiveTokens();

  Rank* const rank_;
  const Clock* const clock_;
  const PlanLimits limits_;
  SequenceTable sequences_;
  StepInput input_;
  std::vector<uint32_t> sampling_slots_;  // of the step's rows that sample, in order
  SamplerScratch scratch_;
  // Of the steps since they were last told: their number, and tokens by expert, as StepOutput's.
  int counted_steps_ = 0;
  std::vector<uint32_t> expert_tokens_;
  Buffer stage_tokens_;  // [max_rows] u32, of a replica with stages
};

}  // namespace troupe

#endif  // TROUPE_WORKER_STEP_ENGINE_H_
