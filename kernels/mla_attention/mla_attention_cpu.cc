#include "kernels/mla_attention/mla_attention_cpu.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/attention_plan.h"
#include "kernels/linear/linear_cpu.h"
#include "kernels/linear/linear_pack.h"
#include "kernels/linear/panel_shape.h"
#include "kernels/mla_attention/mla_attention_kernel.h"

namespace troupe {
namespace {

// Queries of a tile among latents: enough for packing a block to be small beside using it.
constexpr int kAbsorbedQueries = 64;
// Each tile expands the context for itself: few of them, so that most steps need one a head.
constexpr int kExpandedTokens = 512;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

void Check(const MlaAttentionParams& params, const CpuContext& context) {
  const MlaDims& dims = params.dims;
  CHECK_EQ(params.latent.kv_heads, 1);
  CHECK_EQ(params.latent.head_dim, dims.latent_dim + dims.rope_dim);
  CHECK_EQ(params.q.cols, int64_t{dims.heads} * (dims.nope_dim + dims.rope_dim));
  CHECK_EQ(params.out.cols, int64_t{dims.heads} * dims.value_dim);
  const PanelView& like = PanelsOf(params.weights[0].key_up, context.isa);
  for (int head = 0; head < dims.heads; ++head) {
    const MlaHeadWeights& weights = params.weights[head];
    const struct {
      const PackedMatrix* matrix;
      int outputs, inputs;
    } wanted[] = {{weights.key_up, dims.nope_dim, dims.latent_dim},
                  {weights.key_down, dims.latent_dim, dims.nope_dim},
                  {weights.value_up, dims.value_dim, dims.latent_dim}};
    for (const auto& [matrix, outputs, inputs] : wanted) {
      const PanelView& view = PanelsOf(matrix, context.isa);
      CHECK_EQ(view.outputs, outputs);
      CHECK_EQ(view.inputs, inputs);
      CHECK(!view.integers());
      // Latents are packed once for keys and values.
      CHECK(view.dtype == like.dtype && view.precision == like.precision);
    }
  }
}

// Flops of products with weights in the time of one of pairs, which are f32.
double MatrixSpeed(const PanelView& w, CpuIsa isa) {
  const bool dots =
      isa == CpuIsa::kAvx512Bf16 && w.dtype == DType::kBf16 && w.precision == Precision::kBf16;
  return dots ? 2 : 1;
}

// The rows of a step that take one form, as a step of their own.
class FormRows {
 public:
  FormRows(const MlaAttentionParams& params, MlaForm form, double matrix_speed) {
    const BatchView& batch = params.batch;
    for (int row = 0; row < batch.rows; ++row) {
      const int count = batch.first[row + 1] - batch.first[row];
      const MlaForm chosen = params.form != nullptr ? params.form[row]
                                                    : ChooseMlaForm(count, batch.start[row] + count,
                                                                    params.dims, matrix_speed);
      if (chosen != form) continue;
      for (int token = batch.first[row]; token < batch.first[row + 1]; ++token) {
        token_.push_back(token);
        position_.push_back(batch.position[token]);
        token_row_.push_back(static_cast<int32_t>(row_.size()));
      }
      row_.push_back(row);
      slot_.push_back(batch.slot[row]);
      start_.push_back(batch.start[row]);
      first_.push_back(static_cast<int32_t>(token_.size()));
    }
  }

  BatchView view() const {
    return {.rows = static_cast<int>(row_.size()),
            .tokens = static_cast<int>(token_.size()),
            .slot = slot_.data(),
            .start = start_.data(),
            .first = first_.data(),
            .position = position_.data(),
            .token_row = token_row_.data()};
  }
  bool empty() const { return row_.empty(); }
  // In the whole step, of each of these.
  const int32_t* tokens() const { return token_.data(); }
  int row(int own) const { return row_[own]; }

 private:
  std::vector<int32_t> row_, start_, position_, token_row_, token_;
  std::vector<int32_t> first_ = {0};
  std::vector<uint32_t> slot_;
};

// out[t, h] = W_h x[t, h]: the heads' parts of rows lie `x_head` and `out_head` elements apart.
struct HeadProducts {
  RowsView x;  // head 0's; tiles and packed are set here
  int64_t x_head = 0;
  RowsOut out;
  int64_t out_head = 0;
  const PackedMatrix* MlaHeadWeights::*matrix = nullptr;
};

void MultiplyHeads(const MlaAttentionParams& params, HeadProducts products,
                   const CpuContext& context) {
  const PanelShape shape = PanelShapeOf(context.isa);
  const PanelView& like = PanelsOf(params.weights[0].*products.matrix, context.isa);
  const int64_t heads = params.dims.heads;
  const int64_t panels = CeilDiv(like.outputs, shape.outputs);
  products.x.tiles = CeilDiv(products.x.rows, shape.tile_rows);
  // A head's panels are shared out only where heads alone would leave threads without work: each
  // task packs the head's rows for itself.
  const int64_t groups =
      std::clamp<int64_t>(2 * context.pool.threads() / heads, 1, std::max<int64_t>(panels, 1));
  const int64_t panels_per_task = CeilDiv(panels, groups);
  const int64_t packed_floats = CeilDiv(products.x.rows * (like.inputs + like.inputs % 2), 16) * 16;
  float* packed = context.scratch.Take<float>(context.pool.threads() * packed_floats);
  context.pool.ParallelFor(heads * groups, 1, [&](WorkRange range) {
    for (int64_t task = range.begin; task < range.end; ++task) {
      const int64_t head = task / groups;
      const int64_t panel = task % groups * panels_per_task;
      const PanelView& w = PanelsOf(params.weights[head].*products.matrix, context.isa);
      RowsView x = products.x;
      x.x += head * products.x_head;
      x.packed = packed + range.worker * packed_floats;
      RowsOut out = products.out;
      out.out += head * products.out_head;
      kPackRows[context.isa](w, x, 0, x.tiles);
      kMultiplyPanels[context.isa](
          w, x, out, PanelRange{panel, std::min(panel + panels_per_task, panels), 0, x.tiles});
    }
  });
}

// Runs a plan: tile(task, scratch) for each task, then merge(tile, scratch) for those with parts.
template <class Tile, class Merge>
void RunPlan(const AttentionPlan& plan, int64_t scratch_floats, const CpuContext& context,
             const Tile& tile, const Merge& merge) {
  float* scratch = context.scratch.Take<float>(context.pool.threads() * scratch_floats);
  context.pool.ParallelFor(plan.tasks.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      tile(plan.tasks[i], scratch + range.worker * scratch_floats);
    }
  });
  context.pool.ParallelFor(plan.split_tiles.size(), 1, [&](WorkRange range) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      merge(plan.tiles[plan.split_tiles[i]], scratch + range.worker * scratch_floats);
    }
  });
}

void AttendAmongLatents(const MlaAbsorbedView& view, const CpuContext& context) {
  const AttentionPlan plan =
      PlanAttention(view.batch, {.kv_heads = 1,
                                 .tile_tokens = std::max(kAbsorbedQueries / view.heads, 1),
                                 .threads = context.pool.threads()});
  const int rows = MostTokens(plan.tiles) * view.heads;
  const int64_t part_stride = PartFloats(rows, view.latent_dim);
  float* parts = context.scratch.Take<float>(plan.parts * part_stride);
  RunPlan(
      plan, TileScratchFloats(rows, view.latent.head_dim, view.latent_dim), context,
      [&](const AttentionTask& task, float* scratch) {
        kMlaAbsorbedTile[context.isa](view, plan.tiles[task.tile], task.first_block, task.end_block,
                                      task.part < 0 ? nullptr : parts + task.part * part_stride,
                                      scratch);
      },
      [&](const AttentionTile& tile, float* scratch) {
        kMlaAbsorbedMerge[context.isa](view, tile, parts + tile.first_part * part_stride,
                                       part_stride, scratch);
      });
}

void RunAbsorbed(const MlaAttentionParams& params, const FormRows& rows,
                 const CpuContext& context) {
  const MlaDims& dims = params.dims;
  const BatchView batch = rows.view();
  const int64_t key_dim = dims.nope_dim + dims.rope_dim;
  const int64_t entry = dims.latent_dim + dims.rope_dim;
  const int64_t q_cols = dims.heads * entry;
  const int64_t out_cols = int64_t{dims.heads} * dims.latent_dim;
  const Tensor q = {context.scratch.Take<float>(batch.tokens * q_cols), DType::kF32, batch.tokens,
                    q_cols, q_cols};
  const Tensor attended = {context.scratch.Take<float>(batch.tokens * out_cols), DType::kF32,
                           batch.tokens, out_cols, out_cols};
  MultiplyHeads(params,
                {.x = {.x = params.q.f32(),
                       .stride = params.q.stride,
                       .index = rows.tokens(),
                       .rows = batch.tokens},
                 .x_head = key_dim,
                 .out = {.out = q.f32(), .stride = q_cols},
                 .out_head = entry,
                 .matrix = &MlaHeadWeights::key_down},
                context);
  context.pool.ParallelFor(
      batch.tokens, RowsPerTask(int64_t{dims.heads} * dims.rope_dim), [&](WorkRange range) {
        for (int64_t token = range.begin; token < range.end; ++token) {
          const float* from = params.q.f32(rows.tokens()[token]) + dims.nope_dim;
          float* to = q.f32(token) + dims.latent_dim;
          for (int head = 0; head < dims.heads; ++head, from += key_dim, to += entry) {
            std::memcpy(to, from, dims.rope_dim * sizeof(float));
          }
        }
      });
  AttendAmongLatents({.batch = batch,
                      .heads = dims.heads,
                      .latent_dim = dims.latent_dim,
                      .scale = params.scale,
                      .q = q,
                      .latent = params.latent,
                      .tables = params.tables,
                      .out = attended},
                     context);
  MultiplyHeads(
      params,
      {.x = {.x = attended.f32(), .stride = out_cols, .rows = batch.tokens},
       .x_head = dims.latent_dim,
       .out = {.out = params.out.f32(), .stride = params.out.stride, .index = rows.tokens()},
       .out_head = dims.value_dim,
       .matrix = &MlaHeadWeights::value_up},
      context);
}

void RunExpanded(const MlaAttentionParams& params, const FormRows& rows,
                 const CpuContext& context) {
  AttentionPlan plan = PlanAttention(rows.view(), {.kv_heads = params.dims.heads,
                                                   .tile_tokens = kExpandedTokens,
                                                   .threads = context.pool.threads()});
  // Tiles of the whole step, whose tensors they read and write.
  for (AttentionTile& tile : plan.tiles) {
    tile.row = rows.row(tile.row);
    tile.first_token = rows.tokens()[tile.first_token];
  }
  const int most = MostTokens(plan.tiles);
  const int64_t part_stride = PartFloats(most, params.dims.value_dim);
  float* parts = context.scratch.Take<float>(plan.parts * part_stride);
  RunPlan(
      plan, MlaExpandedScratchFloats(most, params.dims), context,
      [&](const AttentionTask& task, float* scratch) {
        const AttentionTile& tile = plan.tiles[task.tile];
        const MlaHeadWeights& weights = params.weights[tile.kv_head];
        kMlaExpandedTile[context.isa](
            params, PanelsOf(weights.key_up, context.isa), PanelsOf(weights.value_up, context.isa),
            tile, task.first_block, task.end_block,
            task.part < 0 ? nullptr : parts + task.part * part_stride, scratch);
      },
      [&](const AttentionTile& tile, float* scratch) {
        kMlaExpandedMerge[context.isa](params, tile, parts + tile.first_part * part_stride,
                                       part_stride, scratch);
      });
}

}  // namespace

void MlaAttentionCpu(const MlaAttentionParams& params, const CpuContext& context) {
  Check(params, context);
  const double speed = MatrixSpeed(PanelsOf(params.weights[0].key_up, context.isa), context.isa);
  if (const FormRows rows(params, MlaForm::kAbsorbed, speed); !rows.empty()) {
    RunAbsorbed(params, rows, context);
  }
  if (const FormRows rows(params, MlaForm::kExpanded, speed); !rows.empty()) {
    RunExpanded(params, rows, context);
  }
}

}  // namespace troupe
