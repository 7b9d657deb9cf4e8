// Whether loading cached blocks beats computing them, from what steps and transfers took lately.
//
//     load    = mean transfer time + bytes / throughput
//     compute = tokens / prefill rate
//
// By Little's law the throughput is the mean bytes of a transfer times the mean number under way,
// over the mean time of one; the first summand is the time that the last transfer takes on its own.
// All means are exponential.
#ifndef TROUPE_COORDINATOR_SCHEDULER_LOAD_DECISION_H_
#define TROUPE_COORDINATOR_SCHEDULER_LOAD_DECISION_H_

#include <cstdint>

namespace troupe {

// The values before anything was measured are hopeful: the first load is tried and then known.
struct Rates {
  double transfer_us = 1'000;
  double transfer_bytes = 256 * 1024;
  double transfers_in_flight = 8;
  double prefill_tokens_per_us = 0;  // 0: not measured
};

double PredictLoadUs(const Rates& rates, uint64_t bytes);
double PredictComputeUs(const Rates& rates, uint32_t tokens);

// True if loading `bytes` is faster than computing `tokens`; also while no prefill was measured.
bool ShouldLoad(const Rates& rates, uint32_t tokens, uint64_t bytes);

// Keeps Rates. Not thread-safe.
class RateMeter {
 public:
  const Rates& rates() const { return rates_; }

  // A load that took so long while `in_flight` transfers, itself included, were under way.
  void ObserveLoad(uint64_t bytes, uint64_t duration_us, uint32_t in_flight);
  // A step's forward pass; counted when prompt tokens make up most of it.
  void ObserveStep(uint32_t prefill_tokens, uint32_t decode_rows, uint64_t forward_us);
  // A load was not worth it. Forgets a little of how slow loads were, so that one slow spell is not
  // believed for ever.
  void ObserveDecline();

 private:
  Rates rates_;
  bool load_seen_ = false;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_LOAD_DECISION_H_
