// How many numbers a model is made of.
//
// Thread model: pure function.
#ifndef TROUPE_MODEL_PARAMETER_COUNTS_H_
#define TROUPE_MODEL_PARAMETER_COUNTS_H_

#include "model/checkpoint.h"
#include "model/description.h"
#include "model/safetensors.h"

namespace troupe {

// Counts of the bound weights; see ParameterCounts for what is active.
ParameterCounts CountParameters(const SafetensorsCheckpoint& files,
                                const ModelDescription& description, const ModelWeights& weights);

}  // namespace troupe

#endif  // TROUPE_MODEL_PARAMETER_COUNTS_H_
