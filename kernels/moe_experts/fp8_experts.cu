#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/moe_experts/coded_experts.cuh"
#include "kernels/moe_experts/expert_steps.cuh"
#include "kernels/moe_experts/fp8_experts.cuh"
#include "kernels/moe_experts/moe_experts_choice.h"
#include "kernels/swiglu/swiglu_cuda.h"

namespace troupe {
namespace {

bool Alike(const PackedMatrix* matrix, const PackedMatrix* like) {
  return AsFp8(matrix) != nullptr && AsFp8(like) != nullptr &&
         matrix->outputs() == like->outputs() && matrix->inputs() == like->inputs();
}

Fp8Product WithTiles(Fp8Product product, const ExpertTiles& tiles) {
  product.tile_group = tiles.group;
  product.tile_first = tiles.first;
  product.tile_rows = tiles.rows;
  product.tile_count = tiles.count;
  return product;
}

// The copy engine brings scales of rows from multiples of 16 bytes on.
constexpr int kScalesUnit = 4;

// Sorted rows, those that nobody has between experts included.
int64_t SortedRows(const ExpertTiles& tiles) {
  return tiles.pairs + int64_t{kScalesUnit - 1} * tiles.experts;
}

// activation(gate_up x) of every sorted row; false where memory is short.
bool RunGateUp(const MoeExpertsParams& params, const Fp8ExpertList& experts,
               const ExpertTiles& tiles, bool few_rows, Fp8Rows& inner,
               const CudaContext& context) {
  const int64_t rows = SortedRows(tiles);
  const int64_t size = experts.down().inputs();
  Fp8Rows x;
  if (!RoundToFp8({.x = params.x.data,
                   .rows = params.x.rows,
                   .cols = params.x.cols,
                   .stride = params.x.stride,
                   .place = tiles.place,
                   .copies = params.top_k,
                   .copied_rows = rows},
                  x, context)) {
    return false;
  }
  // The gate's slabs must end where those of `up` begin.
  const bool gated = size % kFp8Slab == 0;
  Fp8Product product = WithTiles(experts.GateUpProduct(), tiles);
  product.activation = params.activation;
  product.out = gated ? static_cast<void*>(context.scratch.Take<CudaBf16>(rows * size))
                      : context.scratch.Take<float>(rows * 2 * size);
  product.out_stride = gated ? size : 2 * size;
  if (!context.errors.ok()) return false;
  LaunchFp8(product, x, gated, few_rows, /*waves=*/2, context);
  Fp8Source source = {
      .x = product.out, .dtype = DType::kBf16, .rows = rows, .cols = size, .stride = size};
  if (!gated) {
    const Tensor both = {product.out, DType::kF32, rows, 2 * size, 2 * size};
    const Tensor activated = {context.scratch.Take<float>(rows * size), DType::kF32, rows, size,
                              size};
    if (!context.errors.ok()) return false;
    SwigluCuda({both, activated, params.activation}, context);
    source.x = activated.data;
    source.dtype = DType::kF32;
  }
  return RoundToFp8(source, inner, context);
}

}  // namespace

bool AnyFp8(const ExpertWeights& expert) {
  return AsFp8(expert.gate_up) != nullptr || AsFp8(expert.down) != nullptr;
}

std::unique_ptr<Fp8ExpertList> Fp8ExpertList::Make(absl::Span<const ExpertWeights> experts,
                                                   CudaArena& arena, cudaStream_t stream,
                                                   CudaErrors& errors) {
  CHECK(!experts.empty());
  std::unique_ptr<Fp8ExpertList> list(new Fp8ExpertList(experts));
  std::vector<CUtensorMap> maps;
  std::vector<const float*> scales;
  std::vector<const float*> biases;
  for (const bool down : {false, true}) {
    for (const ExpertWeights& expert : experts) {
      const PackedMatrix* matrix = down ? expert.down : expert.gate_up;
      if (experts.size() > kMostGroupedExperts ||
          !Alike(matrix, down ? experts[0].down : experts[0].gate_up)) {
        errors.Note(absl::UnimplementedError(
            "experts: found more than 1024, or matrices of FP8 with FP8 activations beside others, "
            "wanted all of a layer's in whole blocks of 64 outputs, on a GPU"));
        return list;
      }
      maps.push_back(AsFp8(matrix)->map());
      scales.push_back(AsFp8(matrix)->scales());
      biases.push_back(down ? expert.down_bias : expert.gate_up_bias);
    }
  }
  const size_t maps_bytes = maps.size() * sizeof(CUtensorMap);
  const size_t pointers_bytes = scales.size() * sizeof(const float*);
  auto memory = arena.Allocate(static_cast<int64_t>(maps_bytes + 2 * pointers_bytes));
  if (!memory.ok()) {
    errors.Note(memory.status());
    return list;
  }
  list->memory_ = *std::move(memory);
  std::byte* at = list->memory_.get();
  const auto copy = [&](const void* from, size_t bytes) {
    CudaOk(cudaMemcpyAsync(at, from, bytes, cudaMemcpyHostToDevice, stream),
           "copy of a list of experts", errors);
    return std::exchange(at, at + bytes);
  };
  list->maps_ = reinterpret_cast<const CUtensorMap*>(copy(maps.data(), maps_bytes));
  list->scales_ = reinterpret_cast<const float* const*>(copy(scales.data(), pointers_bytes));
  list->biases_ = reinterpret_cast<const float* const*>(copy(biases.data(), pointers_bytes));
  // The driver may read pageable memory after it has returned.
  CudaOk(cudaStreamSynchronize(stream), "copy of a list of experts", errors);
  return list;
}

const Fp8ExpertList* AsFp8(const ExpertList* experts) {
  return dynamic_cast<const Fp8ExpertList*>(experts);
}

void Fp8ExpertsCuda(const MoeExpertsParams& params, const Fp8ExpertList& experts,
                    const CudaContext& context) {
  const int64_t hidden = experts.down().outputs();
  CHECK_EQ(params.x.cols, experts.gate_up().inputs());
  CHECK_EQ(experts.gate_up().outputs(), 2 * experts.down().inputs());
  CHECK_EQ(params.out.rows, params.x.rows);
  CHECK_EQ(params.out.cols, hidden);
  if (params.x.rows == 0) return;
  const float* shared = params.shared == nullptr ? nullptr : RunSharedByLinear(params, context);
  if (!context.errors.ok()) return;
  const bool few_rows = params.x.rows * params.top_k <= int64_t{kFp8FewRows} * experts.size();
  ExpertTiles tiles;
  if (!SortIntoTiles(params, few_rows ? kFp8FewRows : kFp8MostRows, kScalesUnit, tiles, context))
    return;
  Fp8Rows inner;
  if (!RunGateUp(params, experts, tiles, few_rows, inner, context)) return;
  Fp8Product product = WithTiles(experts.DownProduct(), tiles);
  auto* results = context.scratch.Take<CudaBf16>(SortedRows(tiles) * hidden);
  if (!context.errors.ok()) return;
  product.out = results;
  product.rounded = true;
  product.out_stride = hidden;
  LaunchFp8(product, inner, /*gated=*/false, few_rows, /*waves=*/2, context);
  CombineExperts(params, {results, DType::kBf16}, shared, tiles.place, context);
}

}  // namespace troupe
