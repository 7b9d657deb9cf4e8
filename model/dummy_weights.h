// Random weights of a model's shape, for benchmarks of a config without a checkpoint.
//
// What comes out is a safetensors file that no disk holds: everything that reads checkpoints reads
// it. Weights of matrices have random signs and mantissas and magnitudes from 2^-7 to 2^-5, so that
// a forward pass neither dies out nor overflows; norms are 1 and biases 0. The same seed gives the
// same bytes on every machine and with any number of threads.
//
// Beyond DummyOptions::distinct_bytes, values repeat: addresses all differ, memory is shared. That
// is far more than any cache holds, so what streams through it takes the time that a checkpoint
// takes.
//
// Thread model: a pure function that starts and joins threads of its own.
// Ownership: the memory lives as long as the checkpoint that comes back, or any copy of it.
// Errors: ResourceExhausted when the memory cannot be had.
#ifndef TROUPE_MODEL_DUMMY_WEIGHTS_H_
#define TROUPE_MODEL_DUMMY_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/safetensors.h"

namespace troupe {

struct DummyOptions {
  StoredDType dtype = StoredDType::kBF16;  // of all tensors: BF16, F16 or F32
  uint64_t seed = 0;
  int threads = 0;                              // that generate; 0: all cores
  uint64_t distinct_bytes = uint64_t{2} << 30;  // whole pages
};

struct TensorShape {
  std::string name;
  std::vector<int64_t> shape;
};

// `path` names the file in errors.
absl::StatusOr<SafetensorsCheckpoint> MakeDummyTensors(const std::string& path,
                                                       const std::vector<TensorShape>& tensors,
                                                       const DummyOptions& options);

}  // namespace troupe

#endif  // TROUPE_MODEL_DUMMY_WEIGHTS_H_
