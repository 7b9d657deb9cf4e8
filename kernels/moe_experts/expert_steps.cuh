// Steps that a layer's experts take whatever their weights are: rows sorted by expert, and sums
// over a token's experts.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_EXPERT_STEPS_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_EXPERT_STEPS_CUH_

#include "kernels/cuda/context.cuh"
#include "kernels/moe_experts/expert_tiles.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

// Sorts the pairs into tiles of at most `most_rows`, each expert's from a multiple of `unit` on;
// false where memory is short. At most kMostGroupedExperts experts.
bool SortIntoTiles(const MoeExpertsParams& params, int most_rows, int unit, ExpertTiles& tiles,
                   const CudaContext& context);

// Sorted rows' results, [pairs, hidden]. Kernels of products in bf16 and FP8 round them to bf16,
// all alike: half of what is written and read again.
struct ExpertResults {
  const void* rows = nullptr;
  DType dtype = DType::kF32;  // or kBf16
};

// params.out from `routed`, in the order of `place`, and `shared`, [T, hidden] or null.
void CombineExperts(const MoeExpertsParams& params, const ExpertResults& routed,
                    const float* shared, const int32_t* place, const CudaContext& context);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_EXPERT_STEPS_CUH_
