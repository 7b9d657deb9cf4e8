// Declares a kernel that is compiled once per instruction set, and the table to call it by:
//
//   // rms_norm_kernel.h
//   TROUPE_DECLARE_KERNEL(RmsNormRows, const RmsNormParams& params, int64_t begin, int64_t end);
//   // rms_norm_kernel.cc, listed as a kernel in kernels/CMakeLists.txt
//   namespace troupe::TROUPE_ISA { void RmsNormRows(...) { ... } }
//   // rms_norm_cpu.cc
//   kRmsNormRows[context.isa](params, begin, end);
//
// Invariant: a *_kernel.cc includes only headers without inline functions that the linker could
// share with other sources (kernels/simd/, kernels/bf16.h, kernels/tensor.h, parameter structs,
// headers of C): a shared copy compiled for AVX-512 would run on a machine without it. A test
// (kernels/simd/isa_symbols.cmake) looks at the objects.
#ifndef TROUPE_KERNELS_SIMD_DISPATCH_H_
#define TROUPE_KERNELS_SIMD_DISPATCH_H_

namespace troupe {

enum class CpuIsa : unsigned char;

// One function for each CpuIsa, in its order.
template <class Function>
struct KernelTable {
  Function* functions[4];

  constexpr Function* operator[](CpuIsa isa) const { return functions[static_cast<int>(isa)]; }
};

}  // namespace troupe

#define TROUPE_DECLARE_KERNEL(name, ...)                                 \
  namespace avx2 {                                                       \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  namespace avx512 {                                                     \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  namespace avx512bf16 {                                                 \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  inline constexpr ::troupe::KernelTable<decltype(avx2::name)> k##name { \
    { avx2::name, avx512::name, avx512::name, avx512bf16::name }         \
  }

// The same for a kernel with a copy of its own for kAvx512Vnni, listed behind VNNI in
// kernels/CMakeLists.txt.
#define TROUPE_DECLARE_VNNI_KERNEL(name, ...)                            \
  namespace avx2 {                                                       \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  namespace avx512 {                                                     \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  namespace avx512vnni {                                                 \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  namespace avx512bf16 {                                                 \
  void name(__VA_ARGS__);                                                \
  }                                                                      \
  inline constexpr ::troupe::KernelTable<decltype(avx2::name)> k##name { \
    { avx2::name, avx512::name, avx512vnni::name, avx512bf16::name }     \
  }

#endif  // TROUPE_KERNELS_SIMD_DISPATCH_H_
