// The router: its product and the choice of experts, both in f32. The choices: DeepSeek-V3's
// "noaux_tc" (sigmoid, correction bias, groups), V2's "group_limited_greedy", and the plain softmax
// or sigmoid of others.
//
//     logits = x router^T + router_bias, or as they are where there is no router
//     s = sigmoid(logits) or softmax(logits);  c = s + bias
//     with groups: only experts of the groups_chosen groups of the highest score are chosen from
//     chosen = the top_k largest of c, ties to the lower index
//     weight_e = s_e / (sum of the chosen s + 1e-20) * scale        (without `normalize`: s_e *
//     scale)
#ifndef TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_
#define TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_

#include "kernels/linear/linear.h"

namespace troupe {

enum class RouterScoring : uint8_t {
  kSigmoid,
  kSoftmax,  // over all experts; with `normalize` the same as softmax over the chosen
};

// Experts in equal groups of neighbours, of which only the best few may be chosen from.
enum class GroupScore : uint8_t {
  kNone,       // one group
  kMax,        // a group's score is its best expert's c (DeepSeek-V2, group_limited_greedy)
  kTopTwoSum,  // the sum of its two best c (DeepSeek-V3, noaux_tc)
};

struct MoeRouteParams {
  Tensor x;                              // [T, d] f32; with a router only
  const PackedMatrix* router = nullptr;  // [E, d]; null: the caller has formed the logits
  const float* router_bias = nullptr;    // [E]; null: none
  Tensor logits;                         // [T, E] f32; out with a router
  const float* bias = nullptr;           // [E]; null: none
  int top_k = 0;
  bool normalize = true;
  float scale = 1;
  int32_t* experts = nullptr;  // [T, top_k], out: highest c first
  float* weights = nullptr;    // [T, top_k], out
  int32_t* load = nullptr;     // [E], out: added to, tokens that chose each expert; may be null
  RouterScoring scoring = RouterScoring::kSigmoid;
  GroupScore group_score = GroupScore::kNone;
  int groups = 1;         // divides E
  int groups_chosen = 1;  // hold top_k experts at least
  InputNorm norm;         // with a router only
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ROUTE_MOE_ROUTE_H_
