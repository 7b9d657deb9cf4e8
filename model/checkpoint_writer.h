// Writes a quantised copy of a checkpoint's folder, in compressed-tensors' pack-quantized form,
// which other engines read and Troupe loads as it loads any other.
//
// Thread model: pure function. Ownership: borrows everything.
// Errors: InvalidArgument for what cannot be copied, Unavailable when the disk fails, naming the
// file.
#ifndef TROUPE_MODEL_CHECKPOINT_WRITER_H_
#define TROUPE_MODEL_CHECKPOINT_WRITER_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "model/checkpoint.h"
#include "model/coded_weights.h"
#include "model/weight_quantizer.h"

namespace troupe {

// `quantized`: by the name of the tensor that it replaces ("...q_proj.weight"). All other tensors
// and the folder's text files are copied; modules that stay plain are listed in the config's
// `ignore`. `folder` must not exist, or be empty.
absl::Status WriteQuantizedCheckpoint(const Checkpoint& checkpoint, const IntegerFormat& format,
                                      const std::map<std::string, CodedWeights>& quantized,
                                      const std::string& folder);

}  // namespace troupe

#endif  // TROUPE_MODEL_CHECKPOINT_WRITER_H_
