// Whether loading blocks, from the cache service or from host memory, beats computing them, and
// whether keeping them for that is worth it, from what steps and transfers took lately.
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

// Before anything came from host memory: a page or two at the speed of a bus.
inline constexpr Rates kHostRates = {
    .transfer_us = 200, .transfer_bytes = 4 * 1024 * 1024, .transfers_in_flight = 1};

// 0 for no bytes.
double PredictLoadUs(const Rates& rates, uint64_t bytes);
double PredictComputeUs(const Rates& rates, uint32_t tokens);

// True if what takes `load_us` is faster than computing `tokens`; also while no prefill was
// measured.
bool BeatsComputing(const Rates& rates, uint32_t tokens, double load_us);
// True if that holds for loading `bytes`.
bool ShouldLoad(const Rates& rates, uint32_t tokens, uint64_t bytes);
// True if the same holds for a block among many: what a load takes however short it is, is left
// out. `prefill` has the rate of computing.
bool ShouldKeep(const Rates& rates, const Rates& prefill, uint32_t tokens, uint64_t bytes);

// Keeps Rates. Not thread-safe.
class RateMeter {
 public:
  explicit RateMeter(const Rates& before = {}) : rates_(before) {}

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
