// Runs step plans on a rank: sequences, grants, copies, the forward pass, sampling. What a plan
// moves between the rank and the cache service is BlockTransfers' part.
//
// A step is launched and, when the device has come to its end, finished; the next may be launched
// in between, so that the device does not wait for the caller: what one step draws, the next finds
// on the device. Tokens of rows that want penalties or log-probabilities are drawn by the caller,
// and so are all of a step that holds such a row: it is finished before the next is launched.
//
// Thread model: one caller at a time. Ownership: borrows the rank. Errors are InvalidArgument or
// FailedPrecondition for plans that break the protocol, naming what was found and wanted; after one
// the engine is only good for Reset.
#ifndef TROUPE_WORKER_STEP_ENGINE_H_
#define TROUPE_WORKER_STEP_ENGINE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

  // What the device was handed.
  struct Launched {
    StepOutput output;
    std::vector<uint32_t> slots;              // of rows that sample, in order
    std::vector<SequenceTable::Drawn> drawn;  // one for each where the device draws, else empty
    int64_t start_ns = 0;
    bool joins = false;  // the rank has, or shares, something to compute
    // The next step may be launched before this one is finished: the device draws, if anyone does.
    bool ahead = false;
    // The device must have come here, and Finish be called, before the next Launch.
    bool on_host() const { return joins && !ahead; }
  };

  // Steps that may be launched and not finished: results are kept for so many.
  static constexpr size_t kMostLaunched = 2;

  // Hands the plan's rows to the device. A rank of several joins the step where any home has rows.
  absl::StatusOr<Launched> Launch(const v1::StepPlan& plan);
  // Fills `result` but for epoch, step and transfers, the device having come to the step's end.
  // Where the device has not drawn, ranks of the last stage sample, and the others learn from them
  // which tokens came.
  absl::Status Finish(const Launched& step, v1::StepResult& result);

  uint32_t live_sequences() const { return sequences_.live(); }

 private:
  absl::Status ApplyGrants(const v1::StepPlan& plan);
  absl::Status ApplyCopies(const v1::StepPlan& plan);
  absl::Status AddRows(const v1::StepPlan& plan, Launched& step);
  void DrawOnDevice(Launched& step);
  void ReportDrawn(const Launched& step, v1::StepResult& result);
  void DrawOnHost(const Launched& step, v1::StepResult& result);
  // Between stages, the tokens of the step's slots in order.
  void SendTokens(const v1::StepResult& result);
  void ReceiveTokens(const Launched& step);

  Rank* const rank_;
  const Clock* const clock_;
  const PlanLimits limits_;
  SequenceTable sequences_;
  StepInput input_;
  std::vector<PageGrant> grants_;  // of the plan
  SamplerScratch scratch_;
  int64_t last_end_ns_ = 0;  // of the last step that was finished
  Buffer stage_tokens_;  // [max_rows] u32, of a replica with stages
};

}  // namespace troupe

#endif  // TROUPE_WORKER_STEP_ENGINE_H_
