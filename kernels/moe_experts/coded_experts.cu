#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_products.cuh"
#include "kernels/moe_experts/coded_experts.cuh"
#include "kernels/moe_experts/expert_rows.cuh"
#include "kernels/moe_experts/expert_steps.cuh"
#include "kernels/moe_experts/moe_experts.cuh"
#include "kernels/swiglu/swiglu_cuda.h"

namespace troupe {
namespace {

bool Alike(const PackedMatrix* matrix, const PackedMatrix* like) {
  const CudaCodes* codes = AsCodes(matrix);
  const CudaCodes* wanted = AsCodes(like);
  return codes != nullptr && wanted != nullptr && codes->kind() == wanted->kind() &&
         codes->outputs() == wanted->outputs() && codes->inputs() == wanted->inputs() &&
         codes->view().group_bits == wanted->view().group_bits;
}

// Sorted rows of a step's (token, choice) pairs.
struct SortedPairs {
  ExpertRows rows;
  int64_t tiles = 0;  // at most
};

bool Sort(const MoeExpertsParams& params, int experts, int rows_a_tile, SortedPairs& sorted,
          const CudaContext& context) {
  ExpertRows& rows = sorted.rows;
  rows.chosen = params.chosen;
  rows.pairs = static_cast<int>(params.x.rows * params.top_k);
  rows.top_k = params.top_k;
  rows.experts = experts;
  rows.rows_a_tile = rows_a_tile;
  // Every expert may have a tile that is not full.
  sorted.tiles = rows.pairs / rows_a_tile + std::min(rows.pairs, experts);
  rows.end = context.scratch.Take<int32_t>(experts);
  rows.tile_group = context.scratch.Take<int32_t>(sorted.tiles);
  rows.tile_first = context.scratch.Take<int32_t>(sorted.tiles);
  rows.tile_count = context.scratch.Take<int32_t>(1);
  rows.source = context.scratch.Take<int32_t>(rows.pairs);
  rows.place = context.scratch.Take<int32_t>(rows.pairs);
  if (!context.errors.ok()) return false;
  const size_t shared_bytes = static_cast<size_t>(experts) * sizeof(int32_t);
  SortByExpertKernel<<<1, kExpertRowsThreads, shared_bytes, context.stream>>>(rows);
  return true;
}

GroupedRows RowsOfPairs(const SortedPairs& sorted, const float* const* bias) {
  GroupedRows rows;
  rows.rows = sorted.rows.pairs;
  rows.group_bias = bias;
  // Tiles name their group's weights, which these products find elsewhere: any list does.
  rows.group_weights = reinterpret_cast<const void* const*>(bias);
  rows.tile_group = sorted.rows.tile_group;
  rows.tile_first = sorted.rows.tile_first;
  rows.tile_count = sorted.rows.tile_count;
  rows.group_end = sorted.rows.end;
  return rows;
}

// activation(gate_up x), [pairs, size] in bf16.
const CudaBf16* RunGateUp(const MoeExpertsParams& params, const CodedExpertList& experts,
                          const SortedPairs& sorted, const CudaContext& context) {
  const CudaCodes& gate_up = experts.gate_up();
  const int64_t pairs = sorted.rows.pairs;
  const int64_t size = gate_up.outputs() / 2;
  const bool gated = size % kCodedTileOutputs == 0;
  auto* x = context.scratch.Take<CudaBf16>(params.x.rows * params.x.cols);
  auto* inner = context.scratch.Take<CudaBf16>(pairs * size);
  float* plain = gated ? nullptr : context.scratch.Take<float>(3 * pairs * size);
  if (!context.errors.ok()) return nullptr;
  LaunchRound(params.x, x, context);
  CodedTileProduct product;
  product.rows = RowsOfPairs(sorted, experts.gate_up_bias());
  product.rows.source = sorted.rows.source;
  product.w = gate_up.view();
  product.group_views = experts.gate_up_views();
  product.x = x;
  product.x_stride = params.x.cols;
  product.out = gated ? static_cast<void*>(inner) : plain;
  product.out_stride = gated ? size : 2 * size;
  product.activation = params.activation;
  LaunchCodedTiles(product, gate_up.kind(), gated, sorted.rows.rows_a_tile, sorted.tiles, context);
  if (gated) return inner;
  const Tensor both = {plain, DType::kF32, pairs, 2 * size, 2 * size};
  const Tensor activated = {plain + 2 * pairs * size, DType::kF32, pairs, size, size};
  SwigluCuda({both, activated, params.activation}, context);
  LaunchRound(activated, inner, context);
  return inner;
}

}  // namespace

bool IsCoded(const ExpertWeights& expert) {
  return AsCodes(expert.gate_up) != nullptr || AsCodes(expert.down) != nullptr;
}

std::unique_ptr<CodedExpertList> CodedExpertList::Make(absl::Span<const ExpertWeights> experts,
                                                       CudaArena& arena, cudaStream_t stream,
                                                       CudaErrors& errors) {
  CHECK(!experts.empty());
  std::unique_ptr<CodedExpertList> list(new CodedExpertList(experts));
  std::vector<CodedView> views;
  std::vector<const float*> biases;
  for (const bool down : {false, true}) {
    for (const ExpertWeights& expert : experts) {
      const PackedMatrix* matrix = down ? expert.down : expert.gate_up;
      if (!Alike(matrix, down ? experts[0].down : experts[0].gate_up)) {
        errors.Note(absl::UnimplementedError(
            "experts: found matrices of codes beside others, wanted all of a layer's in one "
            "format, in groups of a power of two, on a GPU"));
        return list;
      }
      views.push_back(AsCodes(matrix)->view());
      biases.push_back(down ? expert.down_bias : expert.gate_up_bias);
    }
  }
  const size_t views_bytes = views.size() * sizeof(CodedView);
  const size_t biases_bytes = biases.size() * sizeof(const float*);
  auto memory = arena.Allocate(static_cast<int64_t>(views_bytes + biases_bytes));
  if (!memory.ok()) {
    errors.Note(memory.status());
    return list;
  }
  list->memory_ = *std::move(memory);
  std::byte* at = list->memory_.get();
  list->views_ = reinterpret_cast<const CodedView*>(at);
  list->biases_ = reinterpret_cast<const float* const*>(at + views_bytes);
  CudaOk(cudaMemcpyAsync(at, views.data(), views_bytes, cudaMemcpyHostToDevice, stream),
         "copy of a list of experts", errors);
  CudaOk(cudaMemcpyAsync(at + views_bytes, biases.data(), biases_bytes, cudaMemcpyHostToDevice,
                         stream),
         "copy of a list of experts", errors);
  // The driver may read pageable memory after it has returned.
  CudaOk(cudaStreamSynchronize(stream), "copy of a list of experts", errors);
  return list;
}

const CodedExpertList* AsCodes(const ExpertList* experts) {
  return dynamic_cast<const CodedExpertList*>(experts);
}

const float* RunSharedByLinear(const MoeExpertsParams& params, const CudaContext& context) {
  const ExpertWeights& shared = *params.shared;
  const int64_t rows = params.x.rows;
  const int64_t size = shared.down->inputs();
  const auto take = [&](int64_t cols) {
    return Tensor{context.scratch.Take<float>(rows * cols), DType::kF32, rows, cols, cols};
  };
  const Tensor both = take(2 * size);
  Tensor activated = take(size);
  if (TakesRoundedCuda(*shared.down, rows)) activated.dtype = DType::kBf16;
  const Tensor out = take(shared.down->outputs());
  if (!context.errors.ok()) return nullptr;
  LinearCuda({.x = params.x, .w = shared.gate_up, .out = both, .bias = shared.gate_up_bias},
             context);
  SwigluCuda({both, activated, params.activation}, context);
  LinearCuda({.x = activated, .w = shared.down, .out = out, .bias = shared.down_bias}, context);
  return context.errors.ok() ? out.f32() : nullptr;
}

void CodedExpertsCuda(const MoeExpertsParams& params, const CodedExpertList& experts,
                      const CudaContext& context) {
  const CudaCodes& down = experts.down();
  CHECK_EQ(params.x.cols, experts.gate_up().inputs());
  CHECK_EQ(experts.gate_up().outputs(), 2 * down.inputs());
  CHECK_EQ(params.out.rows, params.x.rows);
  CHECK_EQ(params.out.cols, down.outputs());
  if (params.x.rows == 0) return;
  const int64_t pairs = params.x.rows * params.top_k;
  const int64_t rows_an_expert = CeilDiv(pairs, experts.size());
  SortedPairs sorted;
  const int rows_a_tile = rows_an_expert <= 8 ? 8 : rows_an_expert <= 16 ? 16 : 64;
  if (!Sort(params, experts.size(), rows_a_tile, sorted, context)) return;
  const CudaBf16* inner = RunGateUp(params, experts, sorted, context);
  auto* results = context.scratch.Take<float>(pairs * down.outputs());
  if (!context.errors.ok()) return;
  CodedTileProduct product;
  product.rows = RowsOfPairs(sorted, experts.down_bias());
  product.w = down.view();
  product.group_views = experts.down_views();
  product.x = inner;
  product.x_stride = down.inputs();
  product.out = results;
  product.out_stride = down.outputs();
  LaunchCodedTiles(product, down.kind(), /*gated=*/false, rows_a_tile, sorted.tiles, context);
  const float* shared = params.shared == nullptr ? nullptr : RunSharedByLinear(params, context);
  if (!context.errors.ok()) return;
  CombineExperts(params, {results}, shared, sorted.rows.place, context);
}

}  // namespace troupe
