// Products with weights that stay codes in memory and become numbers in registers.
//
// A panel is a sequence of groups of inputs, each of group_bytes (the last one is cut short):
//     codes   [steps, W] words of 32 bits, little-endian: the codes of 8 (4 bits) or 4 (8 bits)
//             inputs of one output. 4 bits: pair p, inputs 2p and 2p + 1, at bits 4p and 16 + 4p.
//             FP8: inputs 2p and 2p + 1 in bytes p and 2 + p. Integers of 8 bits: input i in byte
//             i, in two's complement.
//     scales  [W] of scale_format
//     zeros   [W] int8, zero less the middle of the codes; where PanelCodes::zeros
// padded to kGroupAlignment bytes. F16 has no groups: [inputs, W].
//
// Sums stay within the invariant of kernels/linear/linear_kernel.h: a group is summed with numbers
// that bf16 holds exactly, input by input, and then added to the output's accumulator, group by
// group, times its scale.
#ifndef TROUPE_KERNELS_LINEAR_CODED_KERNEL_H_
#define TROUPE_KERNELS_LINEAR_CODED_KERNEL_H_

#include "kernels/linear/linear_kernel.h"

namespace troupe {

inline constexpr int64_t kGroupAlignment = 64;

TROUPE_DECLARE_KERNEL(MultiplyCodedPanels, const PanelView& w, bool dots, const RowsView& rows,
                      const RowsOut& out, const PanelRange& range);

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_KERNEL_H_
