#include "kernels/linear/linear_cpu.h"

#include <algorithm>

#include "kernels/linear/integer_kernel.h"
#include "kernels/linear/linear_pack.h"
#include "kernels/linear/panel_shape.h"

namespace troupe {
namespace {

// Rough speeds of one core. Only the cut into tasks depends on them.
constexpr double kWeightBytesPerNs = 30;
constexpr double kMultiplyAddsPerNs = 100;
constexpr double kLeastTaskNs = 2000;
constexpr int64_t kTasksPerThread = 4;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

int64_t ChooseTaskCount(int64_t weight_bytes, int64_t multiply_adds, int threads) {
  if (threads == 1) return 1;
  const double total_ns = std::max(static_cast<double>(weight_bytes) / kWeightBytesPerNs,
                                   static_cast<double>(multiply_adds) / kMultiplyAddsPerNs);
  const int64_t tasks = std::clamp<int64_t>(static_cast<int64_t>(total_ns / kLeastTaskNs), 1,
                                            kTasksPerThread * threads);
  // Few tasks fall evenly on the threads, or one thread works while the others wait.
  return tasks <= threads / 2 ? tasks : CeilDiv(tasks, threads) * threads;
}

PanelKernels PanelKernelsOf(const PanelView& w, CpuIsa isa) {
  if (w.integers()) return {kPackIntegerRows[isa], kMultiplyIntegerPanels[isa]};
  return {kPackRows[isa], kMultiplyPanels[isa]};
}

int64_t WeightBytes(const PanelView& w, CpuIsa isa) {
  const int64_t outputs = PanelShapeOf(isa).outputs;
  const int64_t panels = CeilDiv(w.outputs, outputs);
  return w.coded() ? panels * w.codes.panel_bytes : panels * outputs * w.inputs * BytesOf(w.dtype);
}

LinearConfig ChooseLinearConfig(int64_t rows, const PanelView& w, CpuIsa isa, int threads) {
  const PanelShape shape = PanelShapeOf(isa);
  const int64_t panels = CeilDiv(w.outputs, shape.outputs);
  const int64_t tiles = CeilDiv(rows, shape.tile_rows);
  const int64_t elements = w.inputs * panels * shape.outputs;
  const int64_t tasks = ChooseTaskCount(WeightBytes(w, isa), elements * rows, threads);
  const int64_t panels_per_task = CeilDiv(panels, std::min(panels, tasks));
  const int64_t tile_groups =
      std::clamp<int64_t>(tasks / CeilDiv(panels, panels_per_task), 1, tiles);
  return LinearConfig{tiles, CeilDiv(tiles, tile_groups), panels_per_task};
}

void PackRowsCpu(const PanelView& w, RowsView& rows, const CpuContext& context) {
  rows.packed = context.scratch.Take<float>(PackedFloats(w, rows.rows));
  const auto pack = PanelKernelsOf(w, context.isa).pack;
  const int64_t tile_elements = CeilDiv(rows.rows, rows.tiles) * w.inputs;
  context.pool.ParallelFor(rows.tiles, RowsPerTask(tile_elements),
                           [&](WorkRange range) { pack(w, rows, range.begin, range.end); });
}

void LinearCpu(const LinearParams& params, const CpuContext& context) {
  if (params.x.rows == 0) return;
  const PanelView& w = PanelsOf(params.w, context.isa);
  const LinearConfig config =
      ChooseLinearConfig(params.x.rows, w, context.isa, context.pool.threads());
  RowsView rows{
      .x = params.x.f32(), .stride = params.x.stride, .rows = params.x.rows, .tiles = config.tiles};
  PackRowsCpu(w, rows, context);
  const RowsOut out{.out = params.out.f32(),
                    .stride = params.out.stride,
                    .accumulate = params.accumulate,
                    .bias = params.bias};
  const auto multiply = PanelKernelsOf(w, context.isa).multiply;
  const int64_t panels = CeilDiv(w.outputs, PanelShapeOf(context.isa).outputs);
  const int64_t panel_groups = CeilDiv(panels, config.panels_per_task);
  const int64_t tile_groups = CeilDiv(config.tiles, config.tiles_per_task);
  // Tasks that share panels follow one another, so that a thread keeps weights in its cache.
  context.pool.ParallelFor(panel_groups * tile_groups, 1, [&](WorkRange range) {
    for (int64_t task = range.begin; task < range.end; ++task) {
      const int64_t panel = task / tile_groups * config.panels_per_task;
      const int64_t tile = task % tile_groups * config.tiles_per_task;
      multiply(w, rows, out,
               PanelRange{panel, std::min(panel + config.panels_per_task, panels), tile,
                          std::min(tile + config.tiles_per_task, config.tiles)});
    }
  });
}

}  // namespace troupe
