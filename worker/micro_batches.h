// How a step is cut for a replica with stages, so that its stages work at the same time.
//
// A stage that has handed a part on computes the next one while the following stage computes that
// one: M parts over S stages take M + S - 1 turns of one part's time each. A part takes what its
// tokens take, and something besides however few they are: weights are read, operations begin.
//
//     time(M) = (M + S - 1) * (part_tokens + tokens / M)        in tokens' time
//
// with `part_tokens` tokens' time for a part by itself. Small steps, decode above all, stay whole.
//
// Thread model: pure functions.
#ifndef TROUPE_WORKER_MICRO_BATCHES_H_
#define TROUPE_WORKER_MICRO_BATCHES_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace troupe {

inline constexpr int kMostMicroBatches = 8;

// What a part takes by itself, in tokens' time. All ranks of a replica are of one kind of device.
int64_t PartTokens(absl::string_view device);

// The number of parts with the least time; the smaller one of equals. `tokens` is of the home that
// has most: homes exchange tokens for experts in every part, so all must have the same number.
int MicroBatches(int stages, int64_t tokens, int64_t part_tokens);

}  // namespace troupe

#endif  // TROUPE_WORKER_MICRO_BATCHES_H_
