#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/context.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/pointer_tables.cuh"
#include "kernels/linear/linear_products.cuh"
#include "kernels/moe_experts/expert_rows.cuh"
#include "kernels/moe_experts/moe_experts.cuh"
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

// Where the experts' weights and biases lie, [experts] each, on the device.
struct ExpertTable {
  const void* const* gate_up = nullptr;
  const void* const* down = nullptr;
  const float* const* gate_up_bias = nullptr;
  const float* const* down_bias = nullptr;
};

ExpertTable FindTable(const ExpertWeights* experts, int count, const CudaContext& context) {
  std::vector<const void*> pointers;
  pointers.reserve(4 * static_cast<size_t>(count));
  for (int e = 0; e < count; ++e) pointers.push_back(AsCuda(experts[e].gate_up).data());
  for (int e = 0; e < count; ++e) pointers.push_back(AsCuda(experts[e].down).data());
  for (int e = 0; e < count; ++e) pointers.push_back(experts[e].gate_up_bias);
  for (int e = 0; e < count; ++e) pointers.push_back(experts[e].down_bias);
  const void* const* table = context.pointer_tables.Find(experts, std::move(pointers));
  if (table == nullptr) return {};
  const auto* biases = reinterpret_cast<const float* const*>(table) + 2 * count;
  return {table, table + count, biases, biases + count};
}

void CheckExpert(const ExpertWeights& expert, const ExpertWeights& like, int64_t hidden) {
  const CudaMatrix& gate_up = AsCuda(expert.gate_up);
  const CudaMatrix& down = AsCuda(expert.down);
  CHECK_EQ(gate_up.inputs(), hidden);
  CHECK_EQ(gate_up.outputs(), 2 * down.inputs());
  CHECK_EQ(down.outputs(), hidden);
  CHECK_EQ(down.inputs(), like.down->inputs()) << "experts of different sizes";
  CHECK(gate_up.dtype() == AsCuda(like.gate_up).dtype() && down.dtype() == gate_up.dtype() &&
        gate_up.precision() == like.gate_up->precision() && down.precision() == gate_up.precision())
      << "experts of different dtypes";
}

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
  const Tensor inner = {context.scratch.Take<float>(layer.rows * 2 * size), DType::kF32, layer.rows,
                        2 * size, 2 * size};
  const Tensor activated = {context.scratch.Take<float>(layer.rows * size), DType::kF32, layer.rows,
                            size, size};
  auto* out = context.scratch.Take<float>(layer.rows * hidden);
  if (!context.errors.ok()) return nullptr;
  ExactProduct product;
  product.rows = layer.gate_up_rows;
  product.x = static_cast<const float*>(x.data);
  product.x_stride = x.stride;
  product.out = static_cast<float*>(inner.data);
  product.out_stride = inner.stride;
  product.inputs = hidden;
  product.outputs = 2 * size;
  LaunchExact(product, dtype, round_x, layer.choice, layer.tiles, context);
  SwigluCuda({inner, activated, layer.activation}, context);
  product = {};
  product.rows = layer.down_rows;
  product.x = static_cast<const float*>(activated.data);
  product.x_stride = activated.stride;
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
bool SortRows(const MoeExpertsParams& params, ExpertLayer& layer, ExpertRows& rows,
              const CudaContext& context) {
  rows.chosen = params.chosen;
  rows.pairs = static_cast<int>(params.x.rows * params.top_k);
  rows.top_k = params.top_k;
  rows.experts = params.expert_count;
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
  const ExpertTable table = FindTable(params.experts, params.expert_count, context);
  if (!context.errors.ok()) return false;
  const size_t shared_bytes = static_cast<size_t>(rows.experts) * sizeof(int32_t);
  SortByExpertKernel<<<1, kExpertRowsThreads, shared_bytes, context.stream>>>(rows);
  layer.gate_up_rows.rows = rows.pairs;
  layer.gate_up_rows.tile_group = rows.tile_group;
  layer.gate_up_rows.tile_first = rows.tile_first;
  layer.gate_up_rows.tile_count = rows.tile_count;
  layer.gate_up_rows.group_end = rows.end;
  layer.down_rows = layer.gate_up_rows;
  layer.gate_up_rows.group_weights = table.gate_up;
  layer.gate_up_rows.group_bias = table.gate_up_bias;
  layer.down_rows.group_weights = table.down;
  layer.down_rows.group_bias = table.down_bias;
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

}  // namespace

void MoeExpertsCuda(const MoeExpertsParams& params, const CudaContext& context) {
  const int64_t tokens = params.x.rows;
  CHECK_EQ(params.out.rows, tokens);
  CHECK_EQ(params.out.cols, params.x.cols);
  if (tokens == 0) return;
  for (int e = 0; e < params.expert_count; ++e) {
    CheckExpert(params.experts[e], params.experts[0], params.x.cols);
  }
  if (params.shared != nullptr) CheckExpert(*params.shared, *params.shared, params.x.cols);
  const bool x_aligned = RowsAligned(params.x);

  ExpertLayer routed;
  routed.activation = params.activation;
  routed.gate_up = &AsCuda(params.experts[0].gate_up);
  routed.down = &AsCuda(params.experts[0].down);
  routed.choice = ChooseExperts(params.experts[0],
                                CeilDiv(tokens * params.top_k, params.expert_count), x_aligned);
  ExpertRows rows;
  if (!SortRows(params, routed, rows, context)) return;
  ExpertSums sums;
  sums.routed = RunExperts(routed, params.x, context);
  if (params.shared != nullptr && context.errors.ok()) {
    const ExpertLayer shared = SharedLayer(*params.shared, params.activation, tokens, x_aligned);
    sums.shared = RunExperts(shared, params.x, context);
  }
  if (!context.errors.ok()) return;
  sums.place = rows.place;
  sums.weights = params.weights;
  sums.top_k = params.top_k;
  sums.out = params.out;
  sums.accumulate = params.accumulate;
  const dim3 grid(static_cast<unsigned>(tokens),
                  static_cast<unsigned>(CeilDiv(params.out.cols, kCombineThreads)));
  CombineExpertsKernel<<<grid, kCombineThreads, 0, context.stream>>>(sums);
}

}  // namespace troupe
