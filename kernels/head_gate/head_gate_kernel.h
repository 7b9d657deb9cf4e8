#ifndef TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_KERNEL_H_
#define TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_KERNEL_H_

#include "kernels/head_gate/head_gate.h"
#include "kernels/simd/dispatch.h"

namespace troupe {

// Bounds what the kernel keeps on its stack.
inline constexpr int kMaxGatedHeads = 512;

// Tokens [begin, end); adds to params.closed atomically.
TROUPE_DECLARE_KERNEL(HeadGateTokens, const HeadGateParams& params, int64_t begin, int64_t end);

}  // namespace troupe

#endif  // TROUPE_KERNELS_HEAD_GATE_HEAD_GATE_KERNEL_H_
