#include "kernels/moe_experts/moe_experts_cpu.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "kernels/linear/linear_cpu.h"
#include "kernels/linear/linear_pack.h"
#include "kernels/linear/panel_shape.h"
#include "kernels/swiglu/swiglu_kernel.h"

namespace troupe {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One expert and its tokens, which are neighbours in all temporary memory.
struct Segment {
  const PanelView* gate_up = nullptr;
  const PanelView* down = nullptr;
  RowsView x;  // of the step, by token
  RowsOut gate_up_out;
  RowsView inner;  // of this segment
  RowsOut out;
  int64_t first_tile = 0;  // of all segments' tiles
  int64_t first_task = 0;  // of all segments' gate_up tasks
  std::atomic<int64_t> tasks_left{0};
};

// All experts' products of one call. Each output column of each token is summed by one thread, over
// the experts by rising index, then the shared one: an order that no other token can change.
class ExpertsPass {
 public:
  ExpertsPass(const MoeExpertsParams& params, const CpuContext& context)
      : params_(params),
        context_(context),
        shape_(PanelShapeOf(context.isa)),
        swiglu_(kSwigluRows[context.isa]) {}

  void Run() {
    MakeSegments();
    if (segment_count_ == 0) return;
    PackInputs();
    GateUp();
    Down();
  }

 private:
  void MakeSegments();
  Segment& AddSegment(const ExpertWeights& weights, int64_t rows);
  void PackInputs();
  void GateUp();
  void Activate(const Segment& segment) const;
  void Down();
  // The segment to which item `item` of a numbering belongs that `first` begins for each segment.
  Segment& SegmentAt(int64_t item, int64_t Segment::*first) const;
  PanelKernels KernelsOf(const PanelView& w) const { return PanelKernelsOf(w, context_.isa); }
  int64_t Panels(const PanelView& w) const { return CeilDiv(w.outputs, shape_.outputs); }

  const MoeExpertsParams& params_;
  const CpuContext& context_;
  const PanelShape shape_;
  decltype(&avx2::SwigluRows) const swiglu_;

  Segment* segments_ = nullptr;
  int64_t segment_count_ = 0;
  int64_t tiles_ = 0;
};

Segment& ExpertsPass::AddSegment(const ExpertWeights& weights, int64_t rows) {
  Segment& segment = *new (&segments_[segment_count_++]) Segment;
  segment.gate_up = &PanelsOf(weights.gate_up, context_.isa);
  segment.down = &PanelsOf(weights.down, context_.isa);
  const int64_t tiles = CeilDiv(rows, shape_.tile_rows);
  segment.x =
      RowsView{.x = params_.x.f32(),
               .stride = params_.x.stride,
               .rows = rows,
               .tiles = tiles,
               .packed = context_.scratch.Take<float>(PackedFloats(*segment.gate_up, rows))};
  const int64_t inner = segment.down->inputs;
  segment.gate_up_out = RowsOut{.out = context_.scratch.Take<float>(rows * 2 * inner),
                                .stride = 2 * inner,
                                .bias = weights.gate_up_bias};
  segment.inner =
      RowsView{.x = context_.scratch.Take<float>(rows * inner),
               .stride = inner,
               .rows = rows,
               .tiles = tiles,
               .packed = context_.scratch.Take<float>(PackedFloats(*segment.down, rows))};
  segment.out = RowsOut{.out = params_.out.f32(),
                        .stride = params_.out.stride,
                        .accumulate = true,
                        .bias = weights.down_bias};
  segment.first_tile = tiles_;
  tiles_ += tiles;
  return segment;
}

// Counting sort of the tokens by expert.
void ExpertsPass::MakeSegments() {
  const int64_t tokens = params_.x.rows;
  const int64_t choices = tokens * params_.top_k;
  const int64_t experts = params_.experts->size();
  segments_ = context_.scratch.Take<Segment>(experts + 1);
  int64_t* ends = context_.scratch.Take<int64_t>(experts + 1);
  std::fill_n(ends, experts + 1, 0);
  for (int64_t i = 0; i < choices; ++i) {
    if (params_.chosen[i] >= 0) ++ends[params_.chosen[i] + 1];
  }
  for (int64_t e = 0; e < experts; ++e) ends[e + 1] += ends[e];
  // ends[e] is where expert e begins, and, when its tokens have been put down, where it ends.
  int32_t* token_of = context_.scratch.Take<int32_t>(choices);
  float* scale_of = context_.scratch.Take<float>(choices);
  for (int64_t i = 0; i < choices; ++i) {
    if (params_.chosen[i] < 0) continue;
    const int64_t at = ends[params_.chosen[i]]++;
    token_of[at] = static_cast<int32_t>(i / params_.top_k);
    scale_of[at] = params_.weights[i];
  }
  for (int64_t e = 0, begin = 0; e < experts; begin = ends[e++]) {
    if (ends[e] == begin) continue;
    Segment& segment = AddSegment((*params_.experts)[static_cast<int>(e)], ends[e] - begin);
    segment.x.index = segment.out.index = token_of + begin;
    segment.out.scale = scale_of + begin;
  }
  if (params_.shared != nullptr) AddSegment(*params_.shared, tokens);
}

Segment& ExpertsPass::SegmentAt(int64_t item, int64_t Segment::*first) const {
  Segment* segment = segments_ + segment_count_ - 1;
  while (segment->*first > item) --segment;
  return *segment;
}

void ExpertsPass::PackInputs() {
  const int64_t grain =
      RowsPerTask(params_.x.cols * std::min<int64_t>(params_.x.rows, shape_.tile_rows));
  context_.pool.ParallelFor(tiles_, grain, [&](WorkRange range) {
    for (int64_t tile = range.begin; tile < range.end; ++tile) {
      const Segment& segment = SegmentAt(tile, &Segment::first_tile);
      const int64_t own = tile - segment.first_tile;
      KernelsOf(*segment.gate_up).pack(*segment.gate_up, segment.x, own, own + 1);
    }
  });
}

void ExpertsPass::GateUp() {
  int64_t bytes = 0;
  int64_t multiply_adds = 0;
  int64_t panels = 0;
  for (int64_t i = 0; i < segment_count_; ++i) {
    const PanelView& w = *segments_[i].gate_up;
    bytes += WeightBytes(w, context_.isa);
    multiply_adds += w.outputs * w.inputs * segments_[i].x.rows;
    panels += Panels(w);
  }
  const int64_t wanted = ChooseTaskCount(bytes, multiply_adds, context_.pool.threads());
  const int64_t panels_per_task = CeilDiv(panels, std::min(panels, wanted));
  int64_t tasks = 0;
  for (int64_t i = 0; i < segment_count_; ++i) {
    segments_[i].first_task = tasks;
    segments_[i].tasks_left = CeilDiv(Panels(*segments_[i].gate_up), panels_per_task);
    tasks += segments_[i].tasks_left;
  }
  context_.pool.ParallelFor(tasks, 1, [&](WorkRange range) {
    for (int64_t task = range.begin; task < range.end; ++task) {
      Segment& segment = SegmentAt(task, &Segment::first_task);
      const int64_t panel = (task - segment.first_task) * panels_per_task;
      KernelsOf(*segment.gate_up)
          .multiply(*segment.gate_up, segment.x, segment.gate_up_out,
                    PanelRange{panel, std::min(panel + panels_per_task, Panels(*segment.gate_up)),
                               0, segment.x.tiles});
      // Whoever finishes a segment makes it ready for `down`: no thread waits for all of gate_up.
      if (segment.tasks_left.fetch_sub(1) == 1) Activate(segment);
    }
  });
}

void ExpertsPass::Activate(const Segment& segment) const {
  const int64_t inner = segment.inner.stride;
  SwigluParams swiglu;
  swiglu.gate_up =
      Tensor{segment.gate_up_out.out, DType::kF32, segment.inner.rows, 2 * inner, 2 * inner};
  swiglu.out =
      Tensor{const_cast<float*>(segment.inner.x), DType::kF32, segment.inner.rows, inner, inner};
  swiglu.activation = params_.activation;
  swiglu_(swiglu, 0, segment.inner.rows);
  KernelsOf(*segment.down).pack(*segment.down, segment.inner, 0, segment.inner.tiles);
}

void ExpertsPass::Down() {
  int64_t bytes = 0;
  int64_t multiply_adds = 0;
  for (int64_t i = 0; i < segment_count_; ++i) {
    const PanelView& w = *segments_[i].down;
    bytes += WeightBytes(w, context_.isa);
    multiply_adds += w.outputs * w.inputs * segments_[i].inner.rows;
  }
  const int64_t panels = Panels(*segments_[0].down);
  const int64_t tasks = ChooseTaskCount(bytes, multiply_adds, context_.pool.threads());
  context_.pool.ParallelFor(panels, CeilDiv(panels, std::min(panels, tasks)), [&](WorkRange range) {
    for (int64_t i = 0; i < segment_count_; ++i) {
      const Segment& segment = segments_[i];
      KernelsOf(*segment.down)
          .multiply(*segment.down, segment.inner, segment.out,
                    PanelRange{range.begin, range.end, 0, segment.inner.tiles});
    }
  });
}

}  // namespace

void MoeExpertsCpu(const MoeExpertsParams& params, const CpuContext& context) {
  if (params.x.rows == 0) return;
  for (int64_t row = 0; !params.accumulate && row < params.out.rows; ++row) {
    std::fill_n(params.out.f32(row), params.out.cols, 0.0F);
  }
  ExpertsPass(params, context).Run();
}

}  // namespace troupe
