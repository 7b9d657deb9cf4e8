// Experts of FP8 with FP8 activations on a GPU (kernels/linear/fp8_cuda.cuh).
//
// Thread model: the Ops' caller. Ownership: a list owns its table on the device, and borrows the
// experts' matrices and biases.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_FP8_EXPERTS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_FP8_EXPERTS_CUH_

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/context.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

// Whether any of its matrices is of that kind.
bool AnyFp8(const ExpertWeights& expert);

class Fp8ExpertList final : public ExpertList {
 public:
  // Errors are noted, and the list is then good for nothing: those of the device, and Unimplemented
  // where experts are not all of this kind, or more than kernels take.
  static std::unique_ptr<Fp8ExpertList> Make(absl::Span<const ExpertWeights> experts,
                                             CudaArena& arena, cudaStream_t stream,
                                             CudaErrors& errors);

  const CudaFp8& gate_up() const { return *AsFp8((*this)[0].gate_up); }  // of the first
  const CudaFp8& down() const { return *AsFp8((*this)[0].down); }

  // The weights' side of a product.
  Fp8Product GateUpProduct() const { return Product(0, gate_up()); }
  Fp8Product DownProduct() const { return Product(size(), down()); }

 private:
  using ExpertList::ExpertList;

  Fp8Product Product(int first, const CudaFp8& like) const {
    return {.weights = maps_ + first,
            .group_scales = scales_ + first,
            .group_bias = biases_ + first,
            .weight_rows = static_cast<int>(like.outputs())};
  }

  // [2 * experts] each, on the device: gate_up's, then down's.
  std::shared_ptr<std::byte> memory_;
  const CUtensorMap* maps_ = nullptr;
  const float* const* scales_ = nullptr;
  const float* const* biases_ = nullptr;
};

// Null where the list is none of these.
const Fp8ExpertList* AsFp8(const ExpertList* experts);

void Fp8ExpertsCuda(const MoeExpertsParams& params, const Fp8ExpertList& experts,
                    const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_FP8_EXPERTS_CUH_
