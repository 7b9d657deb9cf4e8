// Which CUDA kernels run a layer's experts: a pure function of the shape, tested without a GPU.
//
// Invariant: nothing here depends on which experts were chosen, which only the device knows; and
// all kernels of products in bf16 form a row's sums in the same order.
#ifndef TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CHOICE_H_
#define TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CHOICE_H_

#include <algorithm>
#include <cstdint>

#include "kernels/linear/linear.h"
#include "kernels/linear/stream_choice.h"

namespace troupe {

inline constexpr int kMostFewPairs = 128;  // (token, choice)
// More would leave a warp a single stage.
inline constexpr int kMostFewTokens = kStreamColumns;
inline constexpr int kMostGroupedExperts = 1024;       // threads of the block that sorts
inline constexpr int kGatedOutputs = kStreamRows / 2;  // of a tile: 8 rows of the gate, 8 of `up`

struct ExpertsShape {
  int64_t tokens = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t hidden = 0;
  int64_t size = 0;
};

// Whether kernels/moe_experts/few_tokens.cuh takes experts of this kind.
inline bool TakesStream(int64_t hidden, int64_t size) {
  return hidden % kStreamInputsUnit == 0 && size % kStreamInputsUnit == 0;
}

// The kernels of kernels/moe_experts/few_tokens.cuh.
struct FewTokensChoice {
  StreamChoice gate_up;  // no blocks: these kernels do not take the shape
  StreamChoice down;
};

inline FewTokensChoice ChooseFewTokens(const ExpertsShape& shape, int multiprocessors) {
  const int64_t pairs = shape.tokens * shape.top_k;
  if (pairs > kMostFewPairs || shape.tokens > kMostFewTokens ||
      !TakesStream(shape.hidden, shape.size)) {
    return {};
  }
  FewTokensChoice choice;
  const int64_t finding_bytes = shape.experts * static_cast<int64_t>(sizeof(int32_t));
  const int64_t most_active = std::min(shape.experts, pairs);
  choice.gate_up = ChooseStream(most_active * (shape.size / kGatedOutputs), shape.tokens,
                                shape.hidden, finding_bytes, multiprocessors);
  // A block has one tile of outputs of all tokens, and its warps share out the experts.
  const int64_t stage_bytes = kStreamStageBytes + shape.tokens * kStreamRowBytes;
  const int64_t fixed_bytes =
      kStreamAlignBytes + finding_bytes + pairs * kStreamRows * static_cast<int64_t>(sizeof(float));
  const int64_t stages = (kStreamSharedBytes - fixed_bytes) / stage_bytes;
  if (choice.gate_up.blocks == 0 || stages < 2) return {};
  choice.down.blocks = static_cast<int>(shape.hidden / kStreamRows);
  // The fewest warps of which none has more experts than with as many as there could be.
  const int64_t most_warps = std::min<int64_t>(kStreamWarps, stages / 2);
  const int64_t experts_a_warp = (most_active + most_warps - 1) / most_warps;
  choice.down.warps = static_cast<int>((most_active + experts_a_warp - 1) / experts_a_warp);
  choice.down.stages =
      static_cast<int>(std::min<int64_t>(stages / choice.down.warps, kMostStreamStages));
  choice.down.shared_bytes = fixed_bytes + choice.down.warps * choice.down.stages * stage_bytes;
  return choice;
}

// Whether kernels/moe_experts/grouped_product.cuh takes experts of this kind. The same products
// that kernels/linear/linear_choice.h gives to the matrix units, but for shapes that are not of 16
// rows.
inline bool TakesGroupedProduct(int64_t hidden, int64_t size, DType weights, Precision precision) {
  return weights == DType::kBf16 && precision == Precision::kBf16 && hidden % 16 == 0 &&
         size % 16 == 0;
}

// How many rows of an expert a tile of its products has at most, where the pairs spread evenly:
// more than an expert has would only take memory from what is under way. 0: the sorting block does
// not take so many experts.
inline int ChooseGroupedRows(const ExpertsShape& shape) {
  if (shape.experts > kMostGroupedExperts) return 0;
  const int64_t rows_an_expert = shape.tokens * shape.top_k / shape.experts;
  return rows_an_expert <= 32 ? 64 : rows_an_expert <= 96 ? 128 : 256;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_EXPERTS_MOE_EXPERTS_CHOICE_H_
