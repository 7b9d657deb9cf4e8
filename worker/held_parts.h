// Which parts of a model lie in a rank's memory, found by looking there.
#ifndef TROUPE_WORKER_HELD_PARTS_H_
#define TROUPE_WORKER_HELD_PARTS_H_

#include <vector>

#include "sharding/weight_parts.h"
#include "worker/loaded_model.h"

namespace troupe {

// The parts that the rank should have and has, ascending: one whose weights were not loaded, or of
// another size, is missing. Pure function.
std::vector<WeightPart> HeldParts(const LoadedModel& model);

}  // namespace troupe

#endif  // TROUPE_WORKER_HELD_PARTS_H_
