// Experts whose weights stay codes on a GPU (kernels/linear/coded_cuda.cuh).
//
// Thread model: the Ops' caller. Ownership: a list owns its table on the device, and borrows the
// experts' matrices and biases.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_CODED_EXPERTS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_CODED_EXPERTS_CUH_

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/context.cuh"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

// Whether any of its matrices is of codes.
bool IsCoded(const ExpertWeights& expert);

class CodedExpertList final : public ExpertList {
 public:
  // Errors are noted, and the list is then good for nothing: those of the device, and Unimplemented
  // where experts are not all codes, each product's of one shape and format.
  static std::unique_ptr<CodedExpertList> Make(absl::Span<const ExpertWeights> experts,
                                               CudaArena& arena, cudaStream_t stream,
                                               CudaErrors& errors);

  const CudaCodes& gate_up() const { return *AsCodes((*this)[0].gate_up); }  // of the first
  const CudaCodes& down() const { return *AsCodes((*this)[0].down); }

  // [experts] each, on the device; a bias may be null.
  const CodedView* gate_up_views() const { return views_; }
  const CodedView* down_views() const { return views_ + size(); }
  const float* const* gate_up_bias() const { return biases_; }
  const float* const* down_bias() const { return biases_ + size(); }

 private:
  using ExpertList::ExpertList;

  std::shared_ptr<std::byte> memory_;
  const CodedView* views_ = nullptr;
  const float* const* biases_ = nullptr;
};

// Null where the list is none of these.
const CodedExpertList* AsCodes(const ExpertList* experts);

void CodedExpertsCuda(const MoeExpertsParams& params, const CodedExpertList& experts,
                      const CudaContext& context);

// [T, hidden]: params.shared of any weights, in scratch memory; null where that is short.
const float* RunSharedByLinear(const MoeExpertsParams& params, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_CODED_EXPERTS_CUH_
