// A layer's experts as CUDA kernels find them: where weights and biases lie, and, for products on
// the matrix units, maps for the copy engine, all on the device since the model was loaded.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_EXPERT_LIST_CUH_
#define TROUPE_KERNELS_MOE_EXPERTS_EXPERT_LIST_CUH_

#include <cuda.h>

#include <memory>

#include "absl/types/span.h"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace troupe {

class CudaExpertList final : public ExpertList {
 public:
  // CHECK-fails where shapes or dtypes differ. Errors of the device are noted; the list is then good
  // for nothing.
  static std::unique_ptr<CudaExpertList> Make(absl::Span<const ExpertWeights> experts,
                                              CudaArena& arena, cudaStream_t stream,
                                              CudaErrors& errors);

  int64_t hidden() const { return hidden_; }
  int64_t inner_size() const { return inner_size_; }
  DType dtype() const { return dtype_; }
  Precision precision() const { return precision_; }

  // [experts] each, on the device; a bias may be null.
  const void* const* gate_up() const { return Pointers(0); }
  const void* const* down() const { return Pointers(1); }
  const float* const* gate_up_bias() const {
    return reinterpret_cast<const float* const*>(Pointers(2));
  }
  const float* const* down_bias() const {
    return reinterpret_cast<const float* const*>(Pointers(3));
  }
  // [experts] each, for kernels/moe_experts/grouped_product.cuh; null where it does not take them.
  const CUtensorMap* gate_up_maps() const { return Maps(0); }
  const CUtensorMap* down_maps() const { return Maps(1); }
  // The same for kernels/moe_experts/few_tokens.cuh.
  const CUtensorMap* gate_up_streams() const { return Maps(2); }
  const CUtensorMap* down_streams() const { return Maps(3); }

 private:
  explicit CudaExpertList(absl::Span<const ExpertWeights> experts);

  const void* const* Pointers(int list) const {
    return reinterpret_cast<const void* const*>(pointers_.get()) + list * size();
  }

  const CUtensorMap* Maps(int list) const {
    if (list >= map_lists_) return nullptr;
    return reinterpret_cast<const CUtensorMap*>(maps_.get()) + list * size();
  }
  void MakeMaps(CudaArena& arena, cudaStream_t stream, CudaErrors& errors);

  int64_t hidden_;
  int64_t inner_size_;
  DType dtype_;
  Precision precision_;
  std::shared_ptr<std::byte> pointers_;
  std::shared_ptr<std::byte> maps_;
  int map_lists_ = 0;
};

// CHECK-fails for a list of another device.
const CudaExpertList& AsCuda(const ExpertList* experts);

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_EXPERT_LIST_CUH_
