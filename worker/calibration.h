// What the matrices of a model are multiplied by, observed while it runs: for quantisation that
// keeps products close rather than weights.
//
// CalibrationOps stands around the Ops of a device whose memory the host can read, and a
// Calibration gathers what it sees. Experts are computed one by one, so that the inputs of each are
// seen.
//
// Thread model: a Calibration is filled by the thread that loads, then by the one that runs the
// model, and read when both are done. Ownership: a CalibrationOps owns the Ops inside it and
// borrows the Calibration, which must outlive it.
#ifndef TROUPE_WORKER_CALIBRATION_H_
#define TROUPE_WORKER_CALIBRATION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/checkpoint.h"

namespace troupe {

// Sums over tokens of x x^T.
struct InputMoments {
  int64_t inputs = 0;
  int64_t tokens = 0;
  std::vector<float> products;  // [inputs, inputs], at and under the diagonal

  void Add(const Tensor& x);
};

class Calibration {
 public:
  // Says which tensors of the checkpoint a packed matrix was made of.
  void Name(const PackedMatrix* matrix, const std::vector<LinearWeights>& parts);
  void Observe(const PackedMatrix* matrix, const Tensor& x);

  // Names of all matrices' tensors with what they were multiplied by; no tokens: never.
  const std::map<std::string, std::shared_ptr<InputMoments>>& matrices() const { return matrices_; }

 private:
  std::map<const PackedMatrix*, std::shared_ptr<InputMoments>> packed_;
  std::map<std::string, std::shared_ptr<InputMoments>> matrices_;
};

std::unique_ptr<Ops> MakeCalibrationOps(std::unique_ptr<Ops> inner, Calibration* calibration);

}  // namespace troupe

#endif  // TROUPE_WORKER_CALIBRATION_H_
