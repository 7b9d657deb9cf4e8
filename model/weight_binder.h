// Finds the tensor of each member of ModelWeights in a checkpoint and checks its shape and dtype.
//
// Thread model: pure function. Ownership: the weights borrow from `files`.
// Errors: InvalidArgument that lists the first problems: missing, mis-shaped, of a dtype that the
// runner cannot use, or not part of the model at all.
#ifndef TROUPE_MODEL_WEIGHT_BINDER_H_
#define TROUPE_MODEL_WEIGHT_BINDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/architectures/architecture.h"
#include "model/checkpoint.h"
#include "model/description.h"
#include "model/dummy_weights.h"
#include "model/quantization.h"
#include "model/safetensors.h"

namespace troupe {

// `folder` names the checkpoint in errors.
absl::StatusOr<ModelWeights> BindWeights(const std::string& folder,
                                         const SafetensorsCheckpoint& files,
                                         const ModelDescription& description,
                                         const TensorNames& names,
                                         const Quantization& quantization);

// The tensors that BindWeights asks for where a checkpoint stores plain values.
std::vector<TensorShape> TensorsOf(const ModelDescription& description, const TensorNames& names);

// Whether the checkpoint holds the MTP module that `description` has: tools that convert
// checkpoints often leave it out, and only speculation misses it.
bool HoldsMtp(const SafetensorsCheckpoint& files, const ModelDescription& description,
              const TensorNames& names);

}  // namespace troupe

#endif  // TROUPE_MODEL_WEIGHT_BINDER_H_
