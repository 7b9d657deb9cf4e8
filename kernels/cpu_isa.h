// Instruction sets of the fast CPU kernels, and which of them this machine runs.
//
// Every kernel source is compiled once for each of them (troupe_isa_sources in CMake) in a
// namespace of its own; kernels/simd/dispatch.h picks at run time. Integer dot products alone
// differ between kAvx512 and kAvx512Vnni: all else runs the same code on both.
#ifndef TROUPE_KERNELS_CPU_ISA_H_
#define TROUPE_KERNELS_CPU_ISA_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace troupe {

// From the least to the most able.
enum class CpuIsa : uint8_t { kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16 };
inline constexpr int kCpuIsaCount = 4;

const char* CpuIsaName(CpuIsa isa);

// The best that this CPU runs; Unimplemented, naming what is missing, below AVX2 with FMA.
absl::StatusOr<CpuIsa> DetectCpuIsa();

}  // namespace troupe

#endif  // TROUPE_KERNELS_CPU_ISA_H_
