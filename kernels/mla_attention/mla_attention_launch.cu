// Latent attention in the absorbed form, whichever is asked for: the forms differ by rounding
// alone, and this one never holds the keys and values of a head.
#include <utility>
#include <vector>

#include "kernels/cuda/attention_kernel.cuh"
#include "kernels/cuda/attention_latent_launch.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/pointer_tables.cuh"
#include "kernels/linear/linear_products.cuh"
#include "kernels/mla_attention/mla_attention_cuda.h"
#include "kernels/mla_attention/mla_product.cuh"

namespace troupe {
namespace {

constexpr int kCopyThreads = 128;

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

// Some numbers behind each head's inputs go behind its outputs. Grid: tokens in x, heads in y.
__global__ void CopyBehindKernel(HeadProduct product) {
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const float* from = product.x + token * product.x_stride + head * product.x_head + product.inputs;
  float* to = product.out + token * product.out_stride + head * product.out_head + product.outputs;
  for (int c = static_cast<int>(threadIdx.x); c < product.copied; c += kCopyThreads) {
    to[c] = from[c];
  }
}

bool InWholeSixteens(const void* at, int64_t stride) {
  return reinterpret_cast<uintptr_t>(at) % 16 == 0 && stride % 4 == 0;
}

// Whether the matrix units form the products. What decides is the same in every step of a model.
bool UnitsMultiply(const CudaMatrix& like, const HeadProduct& product) {
  return like.precision() == Precision::kBf16 && like.dtype() == DType::kBf16 &&
         product.inputs % kHeadProductChunk == 0 && product.outputs % 8 == 0 &&
         InWholeSixteens(product.x, product.x_stride) && product.x_head % 4 == 0 &&
         InWholeSixteens(product.out, product.out_stride) && product.out_head % 4 == 0;
}

template <int kTiles>
void LaunchHeadProduct(const HeadProduct& product, int heads, const CudaContext& context) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(product.tokens, kHeadProductTokens)),
                  static_cast<unsigned>(heads),
                  static_cast<unsigned>(CeilDiv(product.outputs, kTiles * 8 * kHeadProductWarps)));
  Launch(HeadProductKernel<kTiles>, {.grid = grid, .threads = kHeadProductWarps * kWarpSize},
         context, product);
}

// Each head's rows times its matrix, in f32 or where the matrix units do not take them.
void LaunchExactHeads(const CudaMatrix& like, const HeadProduct& heads, int count,
                      const CudaContext& context) {
  const bool aligned = InWholeSixteens(heads.x, heads.x_stride) && heads.x_head % 4 == 0;
  ProductChoice choice;
  choice.unit = heads.inputs % 4 == 0 && aligned ? 4 : 1;
  choice.rows_a_tile = heads.tokens == 1 ? 1 : 8;
  ExactProduct product;
  product.rows.rows = heads.tokens;
  product.x = heads.x;
  product.x_stride = heads.x_stride;
  product.out = heads.out;
  product.out_stride = heads.out_stride;
  product.inputs = heads.inputs;
  product.outputs = heads.outputs;
  product.batch_weights = heads.weights;
  product.x_batch = heads.x_head;
  product.out_batch = heads.out_head;
  LaunchExact(product, like.dtype(), like.precision() == Precision::kBf16, choice,
              CeilDiv(heads.tokens, choice.rows_a_tile), context, count);
  if (heads.copied == 0) return;
  const dim3 grid(static_cast<unsigned>(heads.tokens), static_cast<unsigned>(count));
  CopyBehindKernel<<<grid, kCopyThreads, 0, context.stream>>>(heads);
}

// Of `count` heads; `like`: one of their matrices.
void MultiplyHeads(const CudaMatrix& like, HeadProduct product, int count,
                   const CudaContext& context) {
  product.inputs = static_cast<int>(like.inputs());
  product.outputs = static_cast<int>(like.outputs());
  if (!UnitsMultiply(like, product)) {
    LaunchExactHeads(like, product, count, context);
  } else if (product.tokens <= 256) {
    LaunchHeadProduct<2>(product, count, context);
  } else {
    LaunchHeadProduct<8>(product, count, context);
  }
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

  MultiplyHeads(key_down,
                {.x = params.q.f32(),
                 .x_stride = params.q.stride,
                 .x_head = query,
                 .out = absorbed.f32(),
                 .out_stride = absorbed.stride,
                 .out_head = entry,
                 .weights = table.key_down,
                 .tokens = static_cast<int>(tokens),
                 .copied = dims.rope_dim},
                dims.heads, context);

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
  MultiplyHeads(value_up,
                {.x = attended.f32(),
                 .x_stride = attended.stride,
                 .x_head = dims.latent_dim,
                 .out = params.out.f32(),
                 .out_stride = params.out.stride,
                 .out_head = dims.value_dim,
                 .weights = table.value_up,
                 .tokens = static_cast<int>(tokens)},
                dims.heads, context);
}

}  // namespace troupe
