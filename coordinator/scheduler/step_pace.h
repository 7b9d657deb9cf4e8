// What prompt tokens add to the time of a step that also decodes, from what steps took lately.
//
// Such steps, with and without prompt tokens, are taken for points (tokens, time) near a line; its
// slope is what a token adds, its height at 0 what decoding alone takes. Least squares with
// exponentially fading weights: the line follows as sequences come and go. How long a prompt takes
// on its own says little here: where a step mostly waits for weights from memory, more tokens cost
// next to nothing until they cost as much as they compute. While steps are alike, what a token adds
// is believed to be a little less each time, so that chunks grow until they show it again.
//
// Not thread-safe.
#ifndef TROUPE_COORDINATOR_SCHEDULER_STEP_PACE_H_
#define TROUPE_COORDINATOR_SCHEDULER_STEP_PACE_H_

#include <cstdint>

namespace troupe {

struct StepPace {
  double decode_us = 0;  // of a step without prompt tokens; 0: no step was seen
  double token_us = 0;   // that a prompt token adds; 0: not known, all steps were alike
  double tokens = 0;     // mean prompt tokens of a step
};

class StepPaceMeter {
 public:
  // A step with `decode_rows` > 0; others are ignored.
  void Observe(uint32_t prefill_tokens, uint32_t decode_rows, uint64_t forward_us);
  StepPace pace() const;

 private:
  // Means with fading weights.
  double tokens_ = 0;
  double us_ = 0;
  double tokens_squared_ = 0;
  double tokens_us_ = 0;
  double token_us_ = 0;
  bool seen_ = false;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_STEP_PACE_H_
