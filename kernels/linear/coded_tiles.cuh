// Products of codes with tiles of rows: dense layers of some rows, and experts.
//
// A block of 4 warps forms kColumnTiles * 8 rows of 128 outputs; each warp has two tiles of codes,
// with kGated one of the gate and the same one of `up`, so that both end up in one thread.
// Rows of x and codes come through shared memory, kStages steps of 64 inputs ahead; a lane reads
// the codes that it copied itself.
#ifndef TROUPE_KERNELS_LINEAR_CODED_TILES_CUH_
#define TROUPE_KERNELS_LINEAR_CODED_TILES_CUH_

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/grouped.cuh"
#include "kernels/linear/coded_product.cuh"
#include "kernels/linear/coded_units.cuh"
#include "kernels/linear/weight_stream.cuh"

namespace troupe {

inline constexpr int kCodedTileWarps = 4;
inline constexpr int kCodedTileThreads = kCodedTileWarps * kWarpSize;
inline constexpr int kCodedWarpTiles = 2;
inline constexpr int kCodedBlockTiles = kCodedTileWarps * kCodedWarpTiles;
inline constexpr int kCodedBlockOutputs = kCodedBlockTiles * kCodedTileOutputs;

template <CodedKind kKind, int kColumnTiles>
struct CodedStage {
  static constexpr int kRows = kColumnTiles * kCodedColumns;
  static constexpr int kUnits = kCodedInputs / UnitInputs(kKind);  // of a tile
  static constexpr int kXChunks = kRows * kRowChunks;
  static constexpr int kCodes = kCodedBlockTiles * kUnits * kWarpSize;
  static constexpr int kStages = 6;
  static constexpr int kSharedBytes = kStages * (kXChunks + kCodes) * 16;
};

// Where a block stands, and what its threads copy.
template <CodedKind kKind, int kColumnTiles, bool kGated>
class CodedCopies {
 public:
  using Stage = CodedStage<kKind, kColumnTiles>;
  static constexpr int kXRows = (Stage::kRows + kRowsAPass - 1) / kRowsAPass;

  __device__ CodedCopies(const CodedTileProduct& product, const CodedView& w, const RowTile& tile)
      : x_(product.x),
        w_(w),
        row_(static_cast<int>(threadIdx.x) / kRowChunks),
        chunk_(static_cast<int>(threadIdx.x) % kRowChunks) {
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      const int at = row_ + i * kRowsAPass;
      rows_[i] = at >= tile.count
                     ? nullptr
                     : product.x + SourceRow(product.rows, tile.first + at) * product.x_stride;
    }
  }

  // One of the warp's tiles; it may lie beyond the last.
  __device__ __forceinline__ int Tile(int index) const {
    const int warp =
        static_cast<int>(blockIdx.x) * kCodedTileWarps + static_cast<int>(threadIdx.x) / kWarpSize;
    return kGated ? warp + index * (w_.outputs / 2 / kCodedTileOutputs)
                  : warp * kCodedWarpTiles + index;
  }
  __device__ __forceinline__ int TileToRead(int index) const {
    return min(Tile(index), (w_.outputs - 1) / kCodedTileOutputs);
  }

  __device__ __forceinline__ void Start(int step, uint4* x_stage, uint4* codes_stage) const {
    const int input = step * kCodedInputs + chunk_ * kChunk;
    const bool inside = input < w_.inputs;
#pragma unroll
    for (int i = 0; i < kXRows; ++i) {
      if (row_ + i * kRowsAPass >= Stage::kRows) break;
      const bool valid = inside && rows_[i] != nullptr;
      CopyAsync16(x_stage + SwizzledChunk(row_ + i * kRowsAPass, chunk_),
                  valid ? rows_[i] + input : x_, valid);
    }
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int units = w_.padded_inputs / UnitInputs(kKind);
#pragma unroll
    for (int i = 0; i < kCodedWarpTiles * Stage::kUnits; ++i) {
      const int64_t unit =
          int64_t{TileToRead(i / Stage::kUnits)} * units + step * Stage::kUnits + i % Stage::kUnits;
      CopyAsync16(codes_stage + CodesAt(i), w_.codes + unit * kWarpSize + lane, true);
    }
  }
  __device__ __forceinline__ static int CodesAt(int index) {
    return index * kCodedTileThreads + static_cast<int>(threadIdx.x);
  }

 private:
  const CudaBf16* x_;
  const CodedView& w_;
  const CudaBf16* rows_[kXRows];  // null: no such row
  int row_;
  int chunk_;
};

// A warp's codes of a stage, whose scales `units` have: [half][tile][step][register].
template <CodedKind kKind, int kUnits>
__device__ __forceinline__ void DecodeStage(
    const uint4* codes_stage, const LoadedUnit<kKind> (&units)[kCodedWarpTiles][kUnits],
    uint32_t (&a)[2][kCodedWarpTiles][2][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int tile = 0; tile < kCodedWarpTiles; ++tile) {
      const int unit = half * kUnits / 2;
      const int within = half % LoadedUnit<kKind>::kHalves;
      const uint4 codes =
          codes_stage[(tile * kUnits + unit) * kCodedTileThreads + static_cast<int>(threadIdx.x)];
      const GroupFactors<kKind> factors(units[tile][unit].scales[within]);
      DecodeStep<kKind>(codes, within * 2, factors, a[half][tile][0]);
      DecodeStep<kKind>(codes, within * 2 + 1, factors, a[half][tile][1]);
    }
  }
}

// Half a stage: two steps of 16 inputs of all rows.
template <CodedKind kKind, int kColumnTiles>
__device__ __forceinline__ void MultiplyHalf(const uint4* x_stage, int half,
                                             const uint32_t (&a)[kCodedWarpTiles][2][4],
                                             float (&sums)[kCodedWarpTiles][kColumnTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
    uint32_t columns[4];
    LoadMatrices(columns,
                 x_stage + SwizzledChunk(n * kCodedColumns + lane % 8, half * 4 + lane / 8));
#pragma unroll
    for (int tile = 0; tile < kCodedWarpTiles; ++tile) {
      MultiplyAdd(sums[tile][n], a[tile][0], columns[0], columns[1]);
      MultiplyAdd(sums[tile][n], a[tile][1], columns[2], columns[3]);
    }
  }
}

// Calls visit(row, output, n, part) for what a lane has of a tile's sums.
template <int kColumnTiles, class Visit>
__device__ __forceinline__ void ForEachSum(int rows, int first_output, int outputs,
                                           const Visit& visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = n * kCodedColumns + lane % 4 * 2 + part % 2;
      const int output = first_output + lane / 4 + part / 2 * 8;
      if (row < rows && output < outputs) visit(row, output, n, part);
    }
  }
}

template <int kColumnTiles>
__device__ __forceinline__ void StorePlain(const CodedTileProduct& product, const RowTile& rows,
                                           int tile, const float (&sums)[kColumnTiles][4]) {
  const int outputs = product.w.outputs;
  const bool partly = product.partial != nullptr;
  ForEachSum<kColumnTiles>(
      rows.count, tile * kCodedTileOutputs, outputs, [&](int row, int output, int n, int part) {
        const int64_t at = rows.first + row;
        if (partly) {
          product.partial[(blockIdx.z * int64_t{product.rows.rows} + at) * outputs + output] =
              sums[n][part];
          return;
        }
        float* to = static_cast<float*>(product.out) + at * product.out_stride + output;
        const float sum = sums[n][part] + BiasOf(rows, output);
        *to = product.accumulate ? *to + sum : sum;
      });
}

template <int kColumnTiles>
__device__ __forceinline__ void StoreGated(const CodedTileProduct& product, const RowTile& rows,
                                           int tile,
                                           const float (&sums)[kCodedWarpTiles][kColumnTiles][4]) {
  const int size = product.w.outputs / 2;
  ForEachSum<kColumnTiles>(
      rows.count, tile * kCodedTileOutputs, size, [&](int row, int output, int n, int part) {
        const float gate = sums[0][n][part] + BiasOf(rows, output);
        const float up = sums[1][n][part] + BiasOf(rows, size + output);
        static_cast<CudaBf16*>(
            product.out)[int64_t{rows.first + row} * product.out_stride + output] =
            Narrow<CudaBf16>(Activate(product.activation, gate, up));
      });
}

// Grid: groups of kCodedBlockOutputs outputs in x, tiles of rows in y. Dynamic shared memory:
// CodedStage::kSharedBytes. With product.partial, segments in z. kGated: outputs / 2 is a multiple
// of kCodedTileOutputs.
template <CodedKind kKind, int kColumnTiles, bool kGated>
__global__ void __launch_bounds__(kCodedTileThreads, 2) CodedTileKernel(CodedTileProduct product) {
  using Stage = CodedStage<kKind, kColumnTiles>;
  using Unit = LoadedUnit<kKind>;
  extern __shared__ __align__(128) uint4 coded_tile_shared[];
  uint4* x_stages = coded_tile_shared;
  uint4* code_stages = coded_tile_shared + Stage::kStages * Stage::kXChunks;
  WaitForEarlierKernels();
  const int index = static_cast<int>(blockIdx.y);
  const RowTile rows = FindTile(product.rows, index, Stage::kRows);
  if (rows.count == 0) return;
  if (product.group_views != nullptr) {
    product.w = product.group_views[product.rows.tile_group[index]];
  }
  const CodedView& w = product.w;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const CodedCopies<kKind, kColumnTiles, kGated> copies(product, w, rows);
  const int all_steps = w.padded_inputs / kCodedInputs;
  const int segment_steps =
      product.partial == nullptr ? all_steps : w.segment_inputs / kCodedInputs;
  const int first_step = static_cast<int>(blockIdx.z) * segment_steps;
  const int steps = min(segment_steps, all_steps - first_step);
  const auto start = [&](int step) {
    const int stage = step % Stage::kStages;
    if (step < steps) {
      copies.Start(first_step + step, x_stages + stage * Stage::kXChunks,
                   code_stages + stage * Stage::kCodes);
    }
    CommitCopies();  // an empty group keeps the count of groups
  };
  for (int step = 0; step < Stage::kStages - 1; ++step) start(step);
  Unit units[kCodedWarpTiles][Stage::kUnits];
  const auto load_scales = [&](int step) {
#pragma unroll
    for (int i = 0; i < kCodedWarpTiles * Stage::kUnits; ++i) {
      units[i / Stage::kUnits][i % Stage::kUnits].LoadScales(
          w, Unit::ScalesOf(w, copies.TileToRead(i / Stage::kUnits), lane),
          (first_step + step) * Stage::kUnits + i % Stage::kUnits);
    }
  };
  load_scales(0);
  float sums[kCodedWarpTiles][kColumnTiles][4] = {};
  for (int step = 0; step < steps; ++step) {
    WaitForCopies<Stage::kStages - 2>();
    __syncthreads();
    start(step + Stage::kStages - 1);
    const int stage = step % Stage::kStages;
    uint32_t a[2][kCodedWarpTiles][2][4];
    DecodeStage<kKind>(code_stages + stage * Stage::kCodes, units, a);
    if (step + 1 < steps) load_scales(step + 1);
    MultiplyHalf<kKind, kColumnTiles>(x_stages + stage * Stage::kXChunks, 0, a[0], sums);
    MultiplyHalf<kKind, kColumnTiles>(x_stages + stage * Stage::kXChunks, 1, a[1], sums);
  }
  if constexpr (kGated) {
    StoreGated<kColumnTiles>(product, rows, copies.Tile(0), sums);
  } else {
#pragma unroll
    for (int tile = 0; tile < kCodedWarpTiles; ++tile) {
      StorePlain<kColumnTiles>(product, rows, copies.Tile(tile), sums[tile]);
    }
  }
  WaitForCopies<0>();
}

inline constexpr int kSumSegmentsThreads = 256;

// `out` from `partial`, the segments in order. Grid: outputs in x, rows in y.
__global__ void __launch_bounds__(kSumSegmentsThreads) SumSegmentsKernel(CodedTileProduct product) {
  WaitForEarlierKernels();
  const int output =
      static_cast<int>(blockIdx.x) * kSumSegmentsThreads + static_cast<int>(threadIdx.x);
  const int outputs = product.w.outputs;
  if (output >= outputs) return;
  const int64_t row = blockIdx.y;
  const int64_t step = int64_t{product.rows.rows} * outputs;
  const float* from = product.partial + row * outputs + output;
  float* to = static_cast<float*>(product.out) + row * product.out_stride + output;
  float sum = *from;
  if (product.accumulate) sum = *to + sum;
  for (int segment = 1; segment < product.w.segments; ++segment) {
    float part = from[segment * step];
    if (segment == product.w.segments - 1 && product.rows.bias != nullptr) {
      part += product.rows.bias[output];
    }
    sum += part;
  }
  *to = sum;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_CODED_TILES_CUH_
