// The chosen experts' gated networks and the shared one, each expert reading its weights once for
// all of its tokens: out[t] = sum_e weight_e expert_e(x[t]) + shared(x[t]), or out[t] += that, with
//     expert(x) = down activation(gate_up x + gate_up_bias) + down_bias
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_

#include <vector>

#include "absl/types/span.h"
#include "kernels/activation.h"
#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace troupe {

struct ExpertWeights {
  const PackedMatrix* gate_up = nullptr;  // [2 * m, d]: gate, then up
  const PackedMatrix* down = nullptr;     // [d, m]
  const float* gate_up_bias = nullptr;    // [2 * m]; null: none
  const float* down_bias = nullptr;       // [d]; null: none
};

// A layer's experts, as a device likes to have them listed. Made by Ops::ListExperts, read-only
// after; the matrices and biases it names must outlive it.
class ExpertList {
 public:
  explicit ExpertList(absl::Span<const ExpertWeights> experts)
      : experts_(experts.begin(), experts.end()) {}
  virtual ~ExpertList() = default;

  int size() const { return static_cast<int>(experts_.size()); }
  const ExpertWeights& operator[](int expert) const { return experts_[expert]; }

 private:
  std::vector<ExpertWeights> experts_;
};

struct MoeExpertsParams {
  Tensor x;                               // [T, d] f32
  const ExpertList* experts = nullptr;    // [E]
  const ExpertWeights* shared = nullptr;  // null: none
  int top_k = 0;
  const int32_t* chosen = nullptr;  // [T, top_k]; negative: none, as when another rank computes it
  const float* weights = nullptr;   // [T, top_k]
  Tensor out;                       // [T, d] f32
  Activation activation;            // of all experts
  bool accumulate = true;           // added to `out`
  InputNorm norm;                   // of what all experts read
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_H_
