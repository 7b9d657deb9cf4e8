// How products of FP8 with FP8 are cut up on a GPU: pure functions of the shape, tested without a GPU.
#ifndef TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_
#define TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_

#include <cstdint>

namespace troupe {

inline constexpr int kFp8Block = 128;  // inputs with one scale
inline constexpr int kFp8Slab = 64;    // outputs with one scale

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_FP8_LAYOUT_H_
