// Which of a token's chosen experts one rank computes, of experts that several ranks may hold:
//
//     e = chosen[t, k];  n = begin[e + 1] - begin[e]
//     assigned[t, k] = local[begin[e] + position[t] mod n] if that copy is here, else -1
//
// A copy is chosen by the token's own position alone, so that its sums do not depend on who shares
// the step.
#ifndef TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_H_
#define TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_H_

#include <cstdint>

namespace troupe {

struct MoeAssignParams {
  int tokens = 0;
  int top_k = 0;
  const int32_t* chosen = nullptr;    // [T, top_k] of all experts
  const int32_t* position = nullptr;  // [T] in the token's sequence
  const int32_t* begin = nullptr;     // [E + 1] first copy of each expert
  const int32_t* local = nullptr;     // [begin[E]] number of a copy among this rank's, or -1
  int32_t* assigned = nullptr;        // [T, top_k], out: numbers among this rank's, or -1
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_MOE_ASSIGN_MOE_ASSIGN_H_
