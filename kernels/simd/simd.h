// Vectors of the instruction set that the including source is compiled for: the only place where
// instruction sets differ. A *_kernel.cc includes this, and lives in namespace
// troupe::TROUPE_ISA, as everything here does (see kernels/simd/dispatch.h).
//
//   kLanes                        floats in a Vec: 8 or 16
//   kMaxTileVecs                  Vec accumulators that fit the registers beside their operands
//   Set1(x), Zero()
//   Load(p), Load(p, n)           from float*, Bf16* or E4M3* (of which 0x7f reads as 480); the
//                                 second reads n < kLanes elements only
//   Store(p, v), Store(p, v, n)   to float* or Bf16* (nearest even)
//   a + b, a - b, a * b, a / b, Fma(a, b, c) = a * b + c, Max, Min, Sqrt
//   Sum(v), ReduceMax(v)          over the lanes, in an order that is fixed for the instruction set
//   Exp, Sigmoid, Silu            within 2 ulp (Exp) and 4 ulp of the exact value
//   PairVec                       kLanes pairs of bf16: LoadPairs, Set1Pair, Low, High (to Vec)
//   DotPairs(a, b, c)             c + a.low * b.low + a.high * b.high; kNativeDotPairs: in one
//                                 instruction, which flushes subnormals and rounds in its own way
//
//   CodeVec, LoadCodes(p)         kLanes words of 32 bits that hold codes of weights
//   Lut16, LoadLut16(p)           a table of 16 bf16 values
//   LookUp<s>(t, codes)           for each 16-bit half of a word: entry (half >> s) & 15
//   SignedByte<b>(codes)          byte b of each word, in two's complement
//   WidenE4M3<b>(t, codes)        for each 16-bit half of a word: its byte b from FP8 E4M3, with
//                                 kE4M3Subnormal's numbers in t; NaN comes out as 480
//   PairOf(even, odd)             pairs of what bf16 holds exactly
//   LoadF16, LoadSignedBytes, LoadPowersOf2   kLanes scales from f16, int8, E8M0 (no NaN)
//
// Sources are compiled with contraction off: a product and a sum fuse only where Fma says so, so
// that the same expression gives the same bits wherever it stands.
#ifndef TROUPE_KERNELS_SIMD_SIMD_H_
#define TROUPE_KERNELS_SIMD_SIMD_H_

#ifndef TROUPE_ISA
#error "kernels/simd/simd.h is for sources that troupe_isa_sources compiles"
#endif

#if defined(__AVX512F__)
#include "kernels/simd/vec_avx512.h"
#else
#include "kernels/simd/vec_avx2.h"
#endif
#include "kernels/simd/math.h"

#endif  // TROUPE_KERNELS_SIMD_SIMD_H_
