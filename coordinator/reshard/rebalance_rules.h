// When experts move without anybody's asking: a pure rule, which ReshardActor applies.
#ifndef TROUPE_COORDINATOR_RESHARD_REBALANCE_RULES_H_
#define TROUPE_COORDINATOR_RESHARD_REBALANCE_RULES_H_

#include <cstdint>

namespace troupe {

struct RebalanceRules {
  // What the busiest rank of a stage computes, over the mean, averaged over layers, that is too
  // much; 0: nothing moves by itself.
  double above = 0;
  int64_t interval_ms = 300'000;  // between two looks, and after any change
};

// Whether a change from one balance to another is worth the pause of the streams. It must take away
// a quarter of what is too much at least, so that rests which nothing helps against are left alone.
inline bool WorthRebalancing(double before, double after, const RebalanceRules& rules) {
  return rules.above > 0 && before > rules.above && before - after >= (before - 1) / 4;
}

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_REBALANCE_RULES_H_
