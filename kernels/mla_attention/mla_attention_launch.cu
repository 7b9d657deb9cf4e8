// Latent attention in the absorbed form, whichever is asked for: the forms differ by rounding
// alone, and this one never holds the keys and values of a head.
#include <utility>
#include <vector>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_latent_launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/pointer_tables.cuh"
#include "kernels/linear/linear_products.cuh"
#include "kernels/mla_attention/mla_attention_cuda.h"

namespace troupe {
namespace {

constexpr int kRotatedThreads = 128;

// Heads' matrices on the device, [heads] each.
struct HeadTable {
  const void* const* key_down = nullptr;
  const void* const* value_up = nullptr;
};

HeadTable FindTable(const MlaAttentionParams& params, const CudaContext& context) {
  const int heads = params.dims.heads;
  std::vector<const void*> pointers;
  pointers.reserve(2 * static_cast<size_t>(heads));
  for (int h = 0; h < heads; ++h) pointers.push_back(AsCuda(params.weights[h].key_down).data());
  for (int h = 0; h < heads; ++h) pointers.push_back(AsCuda(params.weights[h].value_up).data());
  const void* const* table = context.pointer_tables.Find(params.weights, std::move(pointers));
  if (table == nullptr) return {};
  return {table, table + heads};
}

// The rotated part of every head's query goes behind what its part without position becomes.
// Grid: tokens in x, heads in y.
__global__ void CopyRotatedKernel(Tensor q, MlaDims dims, float* absorbed) {
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const float* from = static_cast<const float*>(q.data) + token * q.stride +
                      head * (dims.nope_dim + dims.rope_dim) + dims.nope_dim;
  float* to =
      absorbed + (token * dims.heads + head) * (dims.latent_dim + dims.rope_dim) + dims.latent_dim;
  for (int c = static_cast<int>(threadIdx.x); c < dims.rope_dim; c += kRotatedThreads) {
    to[c] = from[c];
  }
}

// Each head's rows of `x`, [T, H, `x_head` apart], times its matrix, into `out` likewise.
void MultiplyHeads(const MlaAttentionParams& params, const CudaMatrix& like,
                   const void* const* weights, const Tensor& x, int64_t x_head, const Tensor& out,
                   int64_t out_head, const CudaContext& context) {
  const bool aligned = RowsAligned(x) && x_head % 4 == 0;
  ProductChoice choice;
  choice.unit = like.inputs() % 4 == 0 && aligned ? 4 : 1;
  choice.rows_a_tile = x.rows == 1 ? 1 : 8;
  ExactProduct product;
  product.rows.rows = static_cast<int>(x.rows);
  product.x = static_cast<const float*>(x.data);
  product.x_stride = x.stride;
  product.out = static_cast<float*>(out.data);
  product.out_stride = out.stride;
  product.inputs = like.inputs();
  product.outputs = like.outputs();
  product.batch_weights = weights;
  product.x_batch = x_head;
  product.out_batch = out_head;
  LaunchExact(product, like.dtype(), like.precision() == Precision::kBf16, choice,
              CeilDiv(x.rows, choice.rows_a_tile), context, params.dims.heads);
}

}  // namespace

void MlaAttentionCuda(const MlaAttentionParams& params, const CudaContext& context) {
  const MlaDims& dims = params.dims;
  const int64_t tokens = params.batch.tokens;
  const int64_t entry = dims.latent_dim + dims.rope_dim;
  const int64_t query = dims.nope_dim + dims.rope_dim;
  CHECK_EQ(params.latent.kv_heads, 1);
  CHECK_EQ(params.latent.head_dim, entry);
  CHECK_EQ(params.q.cols, dims.heads * query);
  CHECK_EQ(params.out.cols, int64_t{dims.heads} * dims.value_dim);
  if (tokens == 0) return;
  const CudaMatrix& key_down = AsCuda(params.weights[0].key_down);
  const CudaMatrix& value_up = AsCuda(params.weights[0].value_up);
  CHECK_EQ(key_down.outputs(), dims.latent_dim);
  CHECK_EQ(value_up.inputs(), dims.latent_dim);
  const HeadTable table = FindTable(params, context);
  const auto rows_of = [&](int64_t cols) {
    return Tensor{context.scratch.Take<float>(tokens * cols), DType::kF32, tokens, cols, cols};
  };
  const Tensor absorbed = rows_of(dims.heads * entry);
  const Tensor attended = rows_of(int64_t{dims.heads} * dims.latent_dim);
  if (!context.errors.ok()) return;

  MultiplyHeads(params, key_down, table.key_down, params.q, query, absorbed, entry, context);
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(dims.heads));
  CopyRotatedKernel<<<grid, kRotatedThreads, 0, context.stream>>>(
      params.q, dims, static_cast<float*>(absorbed.data));

  AttentionParams attention;
  attention.batch = params.batch;
  attention.heads = dims.heads;
  attention.scale_log2 = params.scale * kLog2E;
  attention.q = static_cast<const float*>(absorbed.data);
  attention.q_stride = absorbed.stride;
  attention.k = params.latent;
  attention.v = params.latent;
  attention.v.head_dim = dims.latent_dim;
  attention.values_in_keys = true;
  attention.tables = params.tables;
  attention.out = static_cast<float*>(attended.data);
  attention.out_stride = attended.stride;
  const int64_t most_tiles =
      TilesOfTables(params.batch, params.tables, params.latent.entries_per_page);
  if (LatentUnitsTake(attention)) {
    LaunchLatentAttention(attention, most_tiles, context);
  } else {
    LaunchAttention<Seen::kWindow>(attention, most_tiles, context);
  }
  if (!context.errors.ok()) return;
  MultiplyHeads(params, value_up, table.value_up, attended, dims.latent_dim, params.out,
                dims.value_dim, context);
}

}  // namespace troupe
