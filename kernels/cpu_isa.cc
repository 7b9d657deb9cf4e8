#include "kernels/cpu_isa.h"

#include <cpuid.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// Not all compilers' __builtin_cpu_supports know it.
bool HasAvx512Bf16() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1u) != 0;
}

}  // namespace

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Vnni:
      return "avx512vnni";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

absl::StatusOr<CpuIsa> DetectCpuIsa() {
  // These builtins also ask whether the operating system saves the registers.
  std::string missing;
  if (!__builtin_cpu_supports("avx2")) absl::StrAppend(&missing, " avx2");
  if (!__builtin_cpu_supports("fma")) absl::StrAppend(&missing, " fma");
  if (!__builtin_cpu_supports("f16c")) absl::StrAppend(&missing, " f16c");
  if (!missing.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("this CPU lacks", missing,
                     "; the CPU kernels need AVX2, FMA and F16C (x86-64-v3), so run on a CPU of "
                     "2015 or later, or have the virtual machine expose them"));
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!avx512) return CpuIsa::kAvx2;
  if (!__builtin_cpu_supports("avx512vnni")) return CpuIsa::kAvx512;
  return HasAvx512Bf16() ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512Vnni;
}

}  // namespace troupe
