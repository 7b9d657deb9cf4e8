// Sums of products of integers of 8 bits, beside the vectors of kernels/simd/simd.h and under its
// rules; for sources that are compiled for kAvx512Vnni too.
//
//   IntVec, Set1Int(x), ToFloats(v)   kLanes integers of 32 bits
//   Set1Word(p)                   the 4 bytes at p in every word of a CodeVec
//   LowNibbles, HighNibbles       of each byte, as a byte
//   OffsetBytes(codes)            bytes in two's complement as DotBytes wants them
//   DotBytes(offset, x, c)        c + the sum over a word's bytes of (code + kByteOffset) * x,
//   exact
//                                 for x from -127 to 127
//   DotNibbles(low, high, x_low, x_high, c)   c + both sums of nibble * x, exact likewise
//   StoreBytes<kForNibbles>(p, v) whole numbers of v from -127 to 127 as kLanes bytes; for nibbles,
//                                 of 8 neighbours the order is 0, 4, 1, 5, 2, 6, 3, 7
#ifndef TROUPE_KERNELS_SIMD_INTEGERS_H_
#define TROUPE_KERNELS_SIMD_INTEGERS_H_

#include "kernels/simd/simd.h"

#if defined(__AVX512F__)
#include "kernels/simd/integers_avx512.h"
#else
#include "kernels/simd/integers_avx2.h"
#endif

#endif  // TROUPE_KERNELS_SIMD_INTEGERS_H_
