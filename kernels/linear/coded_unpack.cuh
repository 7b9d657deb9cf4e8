// From codes as they come to codes as kernels read them, and from those to plain numbers of bf16,
// for products with many rows.
#ifndef TROUPE_KERNELS_LINEAR_CODED_UNPACK_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_UNPACK_CUH_

#include "kernels/cuda/hopper.cuh"
#include "kernels/linear/coded_units.cuh"

namespace troupe {

inline constexpr int kPackThreads = 256;
inline constexpr int kUnpackWarps = 8;

// A matrix as it comes (kernels/linear/coded_matrix.h), on the device.
struct RawCodes {
  const uint8_t* codes = nullptr;  // [outputs, row_bytes]
  const float* scales = nullptr;   // [outputs, groups]
  const uint8_t* zeros = nullptr;  // [outputs, groups]; null: none are stored
  int64_t row_bytes = 0;
  int64_t groups = 0;
};

__device__ __forceinline__ uint32_t RawCode(const RawCodes& raw, const CodedView& to, int bits,
                                            int64_t output, int input) {
  if (output >= to.outputs || input >= to.inputs) return 0;
  const uint8_t* row = raw.codes + output * raw.row_bytes;
  return bits == 8 ? row[input] : row[input / 2] >> 4 * (input % 2) & 15;
}

// A thread a lane's unit; `to` is what to.codes points at. Grid: kPackThreads of them.
template <CodedKind kKind>
__global__ void __launch_bounds__(kPackThreads)
    PackCodesKernel(RawCodes raw, CodedView to, uint4* codes, int64_t count) {
  constexpr int kInputs = UnitInputs(kKind);
  constexpr int kBits = kInputs == 64 ? 4 : 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (index >= count) return;
  const int units = to.padded_inputs / kInputs;
  const int lane = static_cast<int>(index % kWarpSize);
  const int unit = static_cast<int>(index / kWarpSize % units);
  const int64_t tile = index / kWarpSize / units;
  uint32_t words[4] = {};
#pragma unroll
  for (int pair = 0; pair < kInputs / 4; ++pair) {
    const int64_t output = tile * kCodedTileOutputs + lane / 4 + pair % 2 * 8;
    const int input = unit * kInputs + pair / 4 * 16 + pair % 4 / 2 * 8 + lane % 4 * 2;
    const uint32_t first = RawCode(raw, to, kBits, output, input);
    const uint32_t second = RawCode(raw, to, kBits, output, input + 1);
    words[pair * kBits / 16] |= kBits == 4 ? first << pair % 4 * 4 | second << (16 + pair % 4 * 4)
                                           : (first | second << 8) << pair % 2 * 16;
  }
  codes[index] = {words[0], words[1], words[2], words[3]};
}

// A thread an output of a group, in the order of the scales.
template <CodedKind kKind>
__global__ void __launch_bounds__(kPackThreads)
    PackScalesKernel(RawCodes raw, CodedView to, void* scales, uint8_t* zeros, int64_t count) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (index >= count) return;
  const int64_t group = index / kCodedTileOutputs % to.groups;
  const int64_t tile = index / kCodedTileOutputs / to.groups;
  const int64_t output = tile * kCodedTileOutputs + index % 2 * 8 + index % kCodedTileOutputs / 2;
  const bool inside = output < to.outputs && group < raw.groups;
  const float scale = inside ? raw.scales[output * raw.groups + group] : 0.0F;
  if constexpr (ScaleBytes(kKind) == 2) {
    static_cast<CudaBf16*>(scales)[index] = Narrow<CudaBf16>(scale);
  } else if constexpr (kKind == CodedKind::kInt4Zeros) {
    const CudaBf16 high = Narrow<CudaBf16>(scale);
    static_cast<__nv_bfloat162*>(scales)[index] = {high, Narrow<CudaBf16>(scale - Widen(high))};
  } else {
    static_cast<float*>(scales)[index] = scale;
  }
  if constexpr (StoresZeros(kKind)) {
    constexpr int kMiddle = kKind == CodedKind::kInt8 ? 128 : 8;
    zeros[index] =
        inside && raw.zeros != nullptr ? raw.zeros[output * raw.groups + group] : kMiddle;
  }
}

// Segments one after another, each row-major [outputs, its inputs], without the padding. Grid:
// tiles in x, groups of kUnpackWarps steps of 64 inputs in y.
template <CodedKind kKind>
__global__ void __launch_bounds__(kUnpackWarps* kWarpSize)
    UnpackCodesKernel(CodedView w, CudaBf16* to) {
  using Unit = LoadedUnit<kKind>;
  constexpr int kUnits = kCodedInputs / Unit::kInputs;
  constexpr int kRowWords = kCodedInputs / 2 + 4;  // 8 rows meet all banks
  __shared__ __align__(16) uint32_t shared[kUnpackWarps][kCodedTileOutputs * kRowWords];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t tile = blockIdx.x;
  const int step = static_cast<int>(blockIdx.y) * kUnpackWarps + warp;
  WaitForEarlierKernels();
  if (step * kCodedInputs >= w.padded_inputs) return;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    Unit unit;
    unit.Load(w, Unit::CodesOf(w, tile, lane), Unit::ScalesOf(w, tile, lane), step * kUnits + u);
#pragma unroll
    for (int i = 0; i < Unit::kSteps; ++i) {
      const GroupFactors<kKind> factors(unit.scales[i / 2]);
      uint32_t a[4];
      DecodeStep<kKind>(unit.codes, i, factors, a);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        shared[warp][(lane / 4 + pair % 2 * 8) * kRowWords + (u * Unit::kSteps + i) * 8 +
                     pair / 2 * 4 + lane % 4] = a[pair];
      }
    }
  }
  __syncwarp();
  const int segment = step * kCodedInputs / w.segment_inputs;
  const int first = segment * w.segment_inputs;
  const int64_t row_inputs = min(w.segment_inputs, w.inputs - first);
#pragma unroll
  for (int i = 0; i < kCodedTileOutputs * 8 / kWarpSize; ++i) {
    const int row = (i * kWarpSize + lane) / 8;
    const int chunk = lane % 8;
    const int64_t output = tile * kCodedTileOutputs + row;
    const int input = step * kCodedInputs + chunk * 8;
    if (output >= w.outputs || input >= w.inputs) continue;
    CudaBf16* at = to + int64_t{first} * w.outputs + output * row_inputs + (input - first);
    *reinterpret_cast<uint4*>(at) =
        *reinterpret_cast<const uint4*>(&shared[warp][row * kRowWords + chunk * 4]);
  }
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_UNPACK_CUH_
