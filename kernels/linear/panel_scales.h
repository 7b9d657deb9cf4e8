// The scales behind the codes of a group in a panel (kernels/linear/coded_kernel.h). For
// *_kernel.cc of kernels/linear alone.
#ifndef TROUPE_KERNELS_LINEAR_PANEL_SCALES_H_
#define TROUPE_KERNELS_LINEAR_PANEL_SCALES_H_

#include <cstddef>
#include <cstdint>

#include "kernels/linear/coded_matrix.h"
#include "kernels/simd/simd.h"

namespace troupe::TROUPE_ISA {
namespace {

inline Vec LoadScales(const std::byte* p, ScaleFormat format) {
  switch (format) {
    case ScaleFormat::kBf16:
      return Load(reinterpret_cast<const Bf16*>(p));
    case ScaleFormat::kF16:
      return LoadF16(p);
    case ScaleFormat::kE8M0:
      return LoadPowersOf2(p);
    case ScaleFormat::kF32:
      break;
  }
  return Load(reinterpret_cast<const float*>(p));
}

inline int64_t ScaleVecBytes(ScaleFormat format) {
  if (format == ScaleFormat::kF32) return kLanes * 4;
  return format == ScaleFormat::kE8M0 ? kLanes : kLanes * 2;
}

}  // namespace
}  // namespace troupe::TROUPE_ISA

#endif  // TROUPE_KERNELS_LINEAR_PANEL_SCALES_H_
