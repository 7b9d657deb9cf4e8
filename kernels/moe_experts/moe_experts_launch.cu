#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "kernels/linear/fp8_cuda.cuh"
#include "kernels/linear/linear_products.cuh"
#include "kernels/moe_experts/coded_experts.cuh"
#include "kernels/moe_experts/expert_list.cuh"
#include "kernels/moe_experts/expert_rows.cuh"
#include "kernels/moe_experts/expert_steps.cuh"
#include "kernels/moe_experts/few_tokens.cuh"
#include "kernels/moe_experts/fp8_experts.cuh"
#include "kernels/moe_experts/grouped_product.cuh"
#include "kernels/moe_experts/moe_experts.cuh"
#include "kernels/moe_experts/moe_experts_choice.h"
#include "kernels/moe_experts/moe_experts_cuda.h"
#include "kernels/swiglu/swiglu_cuda.h"

namespace troupe {
namespace {

// One list of experts with its rows: the routed ones, or the shared one with every token.
struct ExpertLayer {
  const CudaMatrix* gate_up = nullptr;  // of any of them: shapes and dtypes are all alike
  const CudaMatrix* down = nullptr;
  GroupedRows gate_up_rows;  // of x
  GroupedRows down_rows;     // of what the activation gives
  int64_t rows = 0;
  int64_t tiles = 0;
  ProductChoice choice;
  Activation activation;
};

// One kernel for both products: the choice must suit the shorter rows too.
ProductChoice ChooseExperts(const ExpertWeights& expert, int64_t rows_an_expert, bool x_aligned) {
  const CudaMatrix& gate_up = AsCuda(expert.gate_up);
  ProductShape shape = {.rows = rows_an_expert,
                        .inputs = gate_up.inputs(),
                        .outputs = gate_up.outputs(),
                        .weights = gate_up.dtype(),
                        .precision = gate_up.precision(),
                        .x_aligned = x_aligned};
  const ProductChoice first = ChooseProduct(shape);
  shape.inputs = expert.down->inputs();
  const ProductChoice second = ChooseProduct(shape);
  if (first.kernel == second.kernel) return first.unit <= second.unit ? first : second;
  return first.kernel == ProductKernel::kExact ? first : second;
}

float* RunOnUnits(const ExpertLayer& layer, const CudaBf16* x, const CudaContext& context) {
  const int64_t size = layer.down->inputs();
  const int64_t hidden = layer.down->outputs();
  auto* inner = context.scratch.Take<CudaBf16>(layer.rows * size);
  auto* out = context.scratch.Take<float>(layer.rows * hidden);
  if (!context.errors.ok()) return nullptr;
  UnitProduct product;
  product.rows = layer.gate_up_rows;
  product.x = x;
  product.x_stride = product.inputs = hidden;
  product.outputs = size;
  product.out = inner;
  product.activation = layer.activation;
  product.out_stride = size;
  LaunchUnits(product, /*gated=*/true, layer.choice, layer.tiles, context);
  product = {};
  product.rows = layer.down_rows;
  product.x = inner;
  product.x_stride = product.inputs = size;
  product.outputs = hidden;
  product.out = out;
  product.out_stride = hidden;
  LaunchUnits(product, /*gated=*/false, layer.choice, layer.tiles, context);
  return out;
}

float* RunExact(const ExpertLayer& layer, const Tensor& x, const CudaContext& context) {
  const int64_t size = layer.down->inputs();
  const int64_t hidden = layer.down->outputs();
  const DType dtype = layer.gate_up->dtype();
  const bool round_x = layer.gate_up->precision() == Precision::kBf16;
  const bool fp8 = layer.gate_up->precision() == Precision::kFp8Groups;
  const Tensor input = fp8 ? RoundedToFp8(x, context) : x;
  const Tensor inner = {context.scratch.Take<float>(layer.rows * 2 * size), DType::kF32, layer.rows,
                        2 * size, 2 * size};
  const Tensor activated = {context.scratch.Take<float>(layer.rows * size), DType::kF32, layer.rows,
                            size, size};
  auto* out = context.scratch.Take<float>(layer.rows * hidden);
  if (!context.errors.ok()) return nullptr;
  ExactProduct product;
  product.rows = layer.gate_up_rows;
  product.x = static_cast<const float*>(input.data);
  product.x_stride = input.stride;
  product.out = static_cast<float*>(inner.data);
  product.out_stride = inner.stride;
  product.inputs = hidden;
  product.outputs = 2 * size;
  LaunchExact(product, dtype, round_x, layer.choice, layer.tiles, context);
  SwigluCuda({inner, activated, layer.activation}, context);
  const Tensor rounded = fp8 ? RoundedToFp8(activated, context) : activated;
  if (!context.errors.ok()) return nullptr;
  product = {};
  product.rows = layer.down_rows;
  product.x = static_cast<const float*>(rounded.data);
  product.x_stride = rounded.stride;
  product.out = out;
  product.out_stride = hidden;
  product.inputs = size;
  product.outputs = hidden;
  LaunchExact(product, dtype, round_x, layer.choice, layer.tiles, context);
  return out;
}

// [rows, hidden]: every sorted row's expert, in scratch memory; null where that is short.
float* RunExperts(const ExpertLayer& layer, const Tensor& x, const CudaContext& context) {
  if (layer.choice.kernel == ProductKernel::kExact) return RunExact(layer, x, context);
  auto* rounded = context.scratch.Take<CudaBf16>(x.rows * x.cols);
  if (!context.errors.ok()) return nullptr;
  LaunchRound(x, rounded, context);
  return RunOnUnits(layer, rounded, context);
}

// Sorts the pairs and fills in what the products need to know of them; false where memory is short.
bool SortRows(const MoeExpertsParams& params, const CudaExpertList& experts, ExpertLayer& layer,
              ExpertRows& rows, const CudaContext& context) {
  rows.chosen = params.chosen;
  rows.pairs = static_cast<int>(params.x.rows * params.top_k);
  rows.top_k = params.top_k;
  rows.experts = experts.size();
  rows.rows_a_tile = layer.choice.rows_a_tile;
  layer.rows = rows.pairs;
  // Every expert may have a tile that is not full.
  layer.tiles = rows.pairs / rows.rows_a_tile + std::min(rows.pairs, rows.experts);
  rows.end = context.scratch.Take<int32_t>(rows.experts);
  rows.tile_group = context.scratch.Take<int32_t>(layer.tiles);
  rows.tile_first = context.scratch.Take<int32_t>(layer.tiles);
  rows.tile_count = context.scratch.Take<int32_t>(1);
  rows.source = context.scratch.Take<int32_t>(rows.pairs);
  rows.place = context.scratch.Take<int32_t>(rows.pairs);
  if (!context.errors.ok()) return false;
  const size_t shared_bytes = static_cast<size_t>(rows.experts) * sizeof(int32_t);
  SortByExpertKernel<<<1, kExpertRowsThreads, shared_bytes, context.stream>>>(rows);
  layer.gate_up_rows.rows = rows.pairs;
  layer.gate_up_rows.tile_group = rows.tile_group;
  layer.gate_up_rows.tile_first = rows.tile_first;
  layer.gate_up_rows.tile_count = rows.tile_count;
  layer.gate_up_rows.group_end = rows.end;
  layer.down_rows = layer.gate_up_rows;
  layer.gate_up_rows.group_weights = experts.gate_up();
  layer.gate_up_rows.group_bias = experts.gate_up_bias();
  layer.down_rows.group_weights = experts.down();
  layer.down_rows.group_bias = experts.down_bias();
  layer.gate_up_rows.source = rows.source;
  return true;
}

ExpertLayer SharedLayer(const ExpertWeights& shared, const Activation& activation, int64_t tokens,
                        bool x_aligned) {
  ExpertLayer layer;
  layer.activation = activation;
  layer.gate_up = &AsCuda(shared.gate_up);
  layer.down = &AsCuda(shared.down);
  layer.choice = ChooseExperts(shared, tokens, x_aligned);
  layer.rows = tokens;
  layer.tiles = CeilDiv(tokens, layer.choice.rows_a_tile);
  layer.gate_up_rows.weights = layer.gate_up->data();
  layer.gate_up_rows.bias = shared.gate_up_bias;
  layer.gate_up_rows.rows = static_cast<int>(tokens);
  layer.down_rows.weights = layer.down->data();
  layer.down_rows.bias = shared.down_bias;
  layer.down_rows.rows = static_cast<int>(tokens);
  return layer;
}

// Of matrices that are not plain numbers.
bool IsOther(const ExpertWeights& expert) { return IsCoded(expert) || AnyFp8(expert); }

void CheckShared(const ExpertWeights& shared, int64_t hidden) {
  CHECK_EQ(shared.gate_up->inputs(), hidden);
  CHECK_EQ(shared.gate_up->outputs(), 2 * shared.down->inputs());
  CHECK_EQ(shared.down->outputs(), hidden);
  CHECK(AsCuda(shared.gate_up).dtype() == AsCuda(shared.down).dtype() &&
        shared.gate_up->precision() == shared.down->precision())
      << "a shared expert of different dtypes";
}

// [T, hidden]: the shared expert's, in scratch memory; null where there is none or memory is short.
const float* RunShared(const MoeExpertsParams& params, const CudaContext& context) {
  if (params.shared == nullptr || !context.errors.ok()) return nullptr;
  if (IsOther(*params.shared)) return RunSharedByLinear(params, context);
  const ExpertLayer shared =
      SharedLayer(*params.shared, params.activation, params.x.rows, RowsAligned(params.x));
  if (shared.choice.kernel == ProductKernel::kMatrixUnits) {
    return RunSharedByLinear(params, context);
  }
  return RunExperts(shared, params.x, context);
}

// By kernels/moe_experts/few_tokens.cuh.
void RunFewTokens(const MoeExpertsParams& params, const CudaExpertList& experts,
                  const FewTokensChoice& choice, const float* shared, const CudaContext& context) {
  FewTokensExperts few = {.chosen = params.chosen,
                          .weights = params.weights,
                          .tokens = static_cast<int>(params.x.rows),
                          .top_k = params.top_k,
                          .experts = experts.size(),
                          .x = static_cast<const float*>(params.x.data),
                          .x_stride = params.x.stride,
                          .hidden = static_cast<int>(experts.hidden()),
                          .size = static_cast<int>(experts.inner_size()),
                          .gate_up = experts.gate_up_streams(),
                          .down = experts.down_streams(),
                          .gate_up_bias = experts.gate_up_bias(),
                          .down_bias = experts.down_bias(),
                          .activation = params.activation,
                          .shared = shared,
                          .out = static_cast<float*>(params.out.data),
                          .out_stride = params.out.stride,
                          .accumulate = params.accumulate,
                          .norm = params.norm,
                          .choice = choice};
  few.inner = context.scratch.Take<CudaBf16>(int64_t{few.tokens} * few.top_k * few.size);
  if (!context.errors.ok()) return;
  constexpr int kColumnTiles = kMostFewTokens / kStreamColumns;
  WithNormedFours(params.norm, few.hidden, [&](auto fours) {
    Launch(FewTokensGateUpKernel<kColumnTiles, decltype(fours)::value>,
           {.grid = static_cast<unsigned>(choice.gate_up.blocks),
            .threads = kStreamThreads,
            .shared_bytes = choice.gate_up.shared_bytes},
           context, few);
  });
  Launch(FewTokensDownKernel<kColumnTiles>,
         {.grid = static_cast<unsigned>(choice.down.blocks),
          .threads = kStreamThreads,
          .shared_bytes = choice.down.shared_bytes},
         context, few);
}

template <bool kGated, class Shape>
void LaunchGrouped(const GroupedProduct& product, const CudaBf16* x, int64_t rows,
                   const CudaContext& context) {
  Launch(GroupedProductKernel<kGated, Shape>,
         {.grid = static_cast<unsigned>(context.multiprocessors),
          .threads = kGroupedThreads,
          .shared_bytes = Shape::kSharedBytes},
         context, MapRows(x, rows, product.inputs, Shape::kBoxRows, context.errors), product);
}

// By kernels/moe_experts/grouped_product.cuh: [pairs, hidden], sorted by expert, in scratch memory.
template <class Shape>
const CudaBf16* RunGrouped(const MoeExpertsParams& params, const CudaExpertList& experts,
                           const ExpertTiles& tiles, const CudaContext& context) {
  const int64_t pairs = tiles.pairs;
  const int64_t hidden = experts.hidden();
  const int64_t size = experts.inner_size();
  auto* x = context.scratch.Take<CudaBf16>(pairs * hidden);
  auto* inner = context.scratch.Take<CudaBf16>(pairs * size);
  auto* out = context.scratch.Take<CudaBf16>(pairs * hidden);
  if (!context.errors.ok()) return nullptr;
  const SpreadRows spread = {.x = params.x, .place = tiles.place, .top_k = params.top_k, .to = x};
  Launch(SpreadRowsKernel,
         {.grid = static_cast<unsigned>(params.x.rows), .threads = kSpreadThreads}, context,
         spread);
  GroupedProduct product = {.weights = experts.gate_up_maps(),
                            .bias = experts.gate_up_bias(),
                            .tile_group = tiles.group,
                            .tile_first = tiles.first,
                            .tile_rows = tiles.rows,
                            .tile_count = tiles.count,
                            .inputs = static_cast<int>(hidden),
                            .weight_rows = static_cast<int>(2 * size),
                            .out = inner,
                            .out_stride = size,
                            .activation = params.activation};
  LaunchGrouped<true, Shape>(product, x, pairs, context);
  product.weights = experts.down_maps();
  product.bias = experts.down_bias();
  product.inputs = static_cast<int>(size);
  product.weight_rows = static_cast<int>(hidden);
  product.out = out;
  product.out_stride = hidden;
  LaunchGrouped<false, Shape>(product, inner, pairs, context);
  return out;
}

ExpertsShape ShapeOf(const MoeExpertsParams& params, const CudaExpertList& experts) {
  return {.tokens = params.x.rows,
          .experts = experts.size(),
          .top_k = params.top_k,
          .hidden = experts.hidden(),
          .size = experts.inner_size()};
}

// On the copy engine and the matrix units; false where these kernels do not take the experts.
bool RunBf16(const MoeExpertsParams& params, const CudaExpertList& experts,
             const CudaContext& context) {
  if (experts.gate_up_maps() == nullptr || !RowsAligned(params.x)) return false;
  const ExpertsShape shape = ShapeOf(params, experts);
  const FewTokensChoice few = ChooseFewTokens(shape, context.multiprocessors);
  const int rows = ChooseGroupedRows(shape);
  // All numbers of tokens take kernels that round alike.
  if (rows == 0) return false;
  const float* shared = RunShared(params, context);
  if (!context.errors.ok()) return true;
  if (few.gate_up.blocks > 0) {
    RunFewTokens(params, experts, few, shared, context);
    return true;
  }
  ExpertTiles tiles;
  if (!SortIntoTiles(params, rows, /*unit=*/1, tiles, context)) return true;
  const auto run = rows == 64    ? RunGrouped<GroupedShape<64>>
                   : rows == 128 ? RunGrouped<GroupedShape<128>>
                                 : RunGrouped<GroupedShape<256>>;
  const CudaBf16* routed = run(params, experts, tiles, context);
  if (context.errors.ok()) {
    CombineExperts(params, {routed, DType::kBf16}, shared, tiles.place, context);
  }
  return true;
}

// Whether one kernel alone reads x, and norms it.
bool NormsByItself(const MoeExpertsParams& params, const CudaContext& context) {
  const bool other = AsCodes(params.experts) != nullptr || AsFp8(params.experts) != nullptr;
  if (other || params.shared != nullptr) return false;
  const CudaExpertList& experts = AsCuda(params.experts);
  const ExpertsShape shape = ShapeOf(params, experts);
  return experts.gate_up_maps() != nullptr && RowsAligned(params.x) &&
         params.x.cols <= kMostNormedCols &&
         reinterpret_cast<uintptr_t>(params.norm.weight) % 16 == 0 &&
         ChooseFewTokens(shape, context.multiprocessors).gate_up.blocks > 0;
}

}  // namespace

bool SortIntoTiles(const MoeExpertsParams& params, int most_rows, int unit, ExpertTiles& tiles,
                   const CudaContext& context) {
  const int64_t pairs = params.x.rows * params.top_k;
  // Every expert may have a tile that is not full.
  const int64_t most_tiles = pairs / most_rows + std::min<int64_t>(pairs, params.experts->size());
  tiles.chosen = params.chosen;
  tiles.pairs = static_cast<int>(pairs);
  tiles.experts = params.experts->size();
  tiles.most_rows = most_rows;
  tiles.unit = unit;
  tiles.group = context.scratch.Take<int32_t>(most_tiles);
  tiles.first = context.scratch.Take<int32_t>(most_tiles);
  tiles.rows = context.scratch.Take<int32_t>(most_tiles);
  tiles.count = context.scratch.Take<int32_t>(1);
  tiles.place = context.scratch.Take<int32_t>(pairs);
  if (!context.errors.ok()) return false;
  Launch(SortIntoTilesKernel,
         {.grid = 1,
          .threads = kExpertTilesThreads,
          .shared_bytes = tiles.experts * static_cast<int64_t>(sizeof(int32_t))},
         context, tiles);
  return true;
}

void CombineExperts(const MoeExpertsParams& params, const ExpertResults& routed,
                    const float* shared, const int32_t* place, const CudaContext& context) {
  ExpertSums sums;
  sums.routed = routed.rows;
  sums.shared = shared;
  sums.place = place;
  sums.weights = params.weights;
  sums.top_k = params.top_k;
  sums.out = params.out;
  sums.accumulate = params.accumulate;
  const int unit = params.out.cols % 4 == 0 && RowsAligned(params.out) ? 4 : 1;
  const dim3 grid(static_cast<unsigned>(params.x.rows),
                  static_cast<unsigned>(CeilDiv(params.out.cols, unit * kCombineThreads)));
  const auto kernel =
      routed.dtype == DType::kBf16
          ? (unit == 4 ? CombineExpertsKernel<CudaBf16, 4> : CombineExpertsKernel<CudaBf16, 1>)
          : (unit == 4 ? CombineExpertsKernel<float, 4> : CombineExpertsKernel<float, 1>);
  Launch(kernel, {.grid = grid, .threads = kCombineThreads}, context, sums);
}

void MoeExpertsCuda(const MoeExpertsParams& params, const CudaContext& context) {
  if (params.norm.weight != nullptr && !NormsByItself(params, context)) {
    MoeExpertsParams normed = params;
    normed.x = NormedRows(params.x, params.norm, context);
    normed.norm = {};
    return MoeExpertsCuda(normed, context);
  }
  if (const CodedExpertList* coded = AsCodes(params.experts)) {
    return CodedExpertsCuda(params, *coded, context);
  }
  if (const Fp8ExpertList* fp8 = AsFp8(params.experts)) {
    return Fp8ExpertsCuda(params, *fp8, context);
  }
  const CudaExpertList& experts = AsCuda(params.experts);
  CHECK_EQ(params.x.cols, experts.hidden());
  CHECK_EQ(params.out.rows, params.x.rows);
  CHECK_EQ(params.out.cols, params.x.cols);
  if (params.shared != nullptr && !IsOther(*params.shared)) {
    CheckShared(*params.shared, params.x.cols);
  }
  if (params.x.rows == 0) return;
  if (RunBf16(params, experts, context)) return;

  ExpertLayer routed;
  routed.activation = params.activation;
  routed.gate_up = &AsCuda(experts[0].gate_up);
  routed.down = &AsCuda(experts[0].down);
  routed.choice = ChooseExperts(experts[0], CeilDiv(params.x.rows * params.top_k, experts.size()),
                                RowsAligned(params.x));
  ExpertRows rows;
  if (!SortRows(params, experts, routed, rows, context)) return;
  const float* results = RunExperts(routed, params.x, context);
  const float* shared = RunShared(params, context);
  if (context.errors.ok()) CombineExperts(params, {results}, shared, rows.place, context);
}

}  // namespace troupe
