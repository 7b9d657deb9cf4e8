// Brings single tensors and matrices of a checkpoint to a device, in the form that kernels want.
//
// Thread model: one thread. Ownership: borrows the Ops, which owns no part of what is returned.
// The first error sticks, and what is loaded after it is empty, so that the walk over a model's
// weights reads as a list of what is loaded.
#ifndef TROUPE_WORKER_WEIGHT_LOADER_H_
#define TROUPE_WORKER_WEIGHT_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "model/weight_quantizer.h"
#include "worker/loaded_model.h"

namespace troupe {

class WeightLoader {
 public:
  // `progress` is told the stored bytes that have been loaded so far; may be null.
  using Progress = std::function<void(int64_t bytes_done)>;

  WeightLoader(Ops* ops, const LoadOptions& options, float norm_weight_offset, Progress progress);

  // A vector in f32; empty where the model has none.
  DeviceTensor Floats(const TensorView& view);
  DeviceTensor Values(const std::vector<float>& values);
  Buffer Integers(const std::vector<int32_t>& values);
  // A norm's weight as kernels multiply by it.
  DeviceTensor Norm(const TensorView& view);
  // A small matrix in f32, for the few that kernels take so.
  DeviceTensor SmallMatrix(const LinearWeights& weights);
  // Rows to be looked up: as stored where kernels take that, else in f32.
  DeviceTensor Table(const TensorView& view);

  // All parts under one another, as codes where they are all stored so, in bf16 where all values
  // are, else in f32; plain weights as integers where the options ask for that. Products are formed
  // as the options or the checkpoint say; Unimplemented where the device cannot.
  std::unique_ptr<PackedMatrix> Matrix(const std::vector<LinearWeights>& parts);
  // The matrix of logits. It decides between near tokens and is read once a step whatever the
  // model's depth: 8 bits where others get 4.
  std::unique_ptr<PackedMatrix> HeadMatrix(const LinearWeights& weights);
  // For few outputs that decide much: as stored, products in f32 in every mode.
  std::unique_ptr<PackedMatrix> ExactMatrix(const std::vector<LinearWeights>& parts);
  // Rows [first, first + count) of one matrix, for a head of several, and their transpose: of the
  // same dtype, as stored where kernels take that, else in f32. Products have full precision, even
  // where the checkpoint wants integers: latent attention multiplies these with other matrices'
  // results than the checkpoint's own.
  std::unique_ptr<PackedMatrix> Rows(const LinearWeights& weights, int64_t first, int64_t count);
  std::unique_ptr<PackedMatrix> TransposedRows(const LinearWeights& weights, int64_t first,
                                               int64_t count);
  std::unique_ptr<ExpertList> ListExperts(absl::Span<const ExpertWeights> experts);
  // The parts' biases, one after another, zeros for those that have none; empty when none has.
  DeviceTensor Bias(const std::vector<LinearWeights>& parts);

  void Fail(absl::Status status);
  const absl::Status& status() const { return status_; }
  int64_t device_bytes() const { return device_bytes_; }
  int64_t stored_bytes() const { return bytes_done_; }

 private:
  std::unique_ptr<PackedMatrix> Pack(const std::vector<LinearWeights>& parts, Precision precision,
                                     const std::optional<IntegerFormat>& quantize);
  // How products with all of `parts` are formed: as they say, else with `otherwise`.
  Precision PrecisionOf(const std::vector<LinearWeights>& parts, Precision otherwise,
                        const std::optional<IntegerFormat>& quantize);
  // Null unless all parts are codes that pack together.
  std::unique_ptr<PackedMatrix> PackCodes(const std::vector<LinearWeights>& parts,
                                          Precision precision,
                                          const std::optional<IntegerFormat>& quantize);
  std::unique_ptr<PackedMatrix> PackPlain(const std::vector<LinearWeights>& parts,
                                          Precision precision);
  std::unique_ptr<PackedMatrix> PackValues(std::vector<float> values, int64_t cols, DType dtype);
  DeviceTensor ToDevice(const void* data, DType dtype, int64_t rows, int64_t cols);
  DeviceTensor ToDevice(const std::vector<float>& values, int64_t cols);
  void Report(int64_t stored_bytes);

  Ops* ops_;
  Precision precision_;
  std::optional<IntegerFormat> quantize_;
  int threads_;
  decltype(LoadOptions::packed) packed_;
  float norm_weight_offset_;
  Progress progress_;
  absl::Status status_;
  int64_t bytes_done_ = 0;
  int64_t device_bytes_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_LOADER_H_
