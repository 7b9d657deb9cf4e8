// The figures and the trace of one request, as it goes on.
//
// The trace is a tree: the request, below it queue, prefill and the reasoning steps.
//
// Thread model: one owner. Times, those in events included, are microseconds since the request was
// accepted.
#ifndef TROUPE_COORDINATOR_JOB_TRACE_H_
#define TROUPE_COORDINATOR_JOB_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/scheduler/sequence.h"
#include "coordinator/step_cutter.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

class JobTrace {
 public:
  void OnPrompt(uint32_t prompt_tokens) { usage_.set_prompt_tokens(prompt_tokens); }
  void OnStarted(const std::string& worker);
  // `heads_per_token`: gated (layer, head) pairs of a token.
  void OnProgress(const SequenceEvent& event, uint32_t heads_per_token, int64_t now_us);
  // A step ended; returns what the client is told.
  v1::Step OnStep(const StepCutter::Step& step, int64_t now_us);

  // `with_spans`: also the tree.
  v1::Finished Finish(bool with_spans, int64_t now_us);

  // 1 on the first worker, and one more on each that followed.
  uint64_t epoch() const { return epoch_; }

 private:
  struct Mark {
    int64_t at_us = 0;
    uint64_t heads_total = 0;
    uint64_t heads_skipped = 0;
  };

  v1::TraceSpan Span(std::string name, uint32_t parent, const Mark& start, int64_t end_us) const;
  Mark Here(int64_t now_us) const;

  v1::Usage usage_;
  SequenceFigures figures_;  // until the first token, on the worker that gave it
  uint64_t epoch_ = 0;
  std::string worker_;
  Mark first_token_;
  Mark last_step_;
  bool has_token_ = false;
  std::vector<v1::TraceSpan> steps_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_JOB_TRACE_H_
