#include "kernels/linear/linear_pack.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/bf16.h"
#include "kernels/host_memory.h"
#include "kernels/linear/panel_shape.h"

namespace troupe {
namespace {

// Row `row` of a part, widened where the matrix needs it.
struct Source {
  const Tensor* part;
  int64_t row;
};

template <class T>
constexpr DType DTypeOf() {
  return std::is_same_v<T, float> ? DType::kF32 : DType::kBf16;
}

// Inputs that are moved at a time: a cache line of a source, so that each is fetched once, into few
// lines of the panel, which stay cached until all outputs have written theirs.
template <class From>
constexpr int64_t kInputsAtOnce = 64 / static_cast<int64_t>(sizeof(From));

// Inputs [k, end) of one output, kGroup of them side by side, the groups `stride` elements apart.
template <class From, class To, int kGroup>
void CopyInputs(const From* from, int64_t k, int64_t end, int64_t stride, To* to) {
  for (to += k / kGroup * stride; k < end; k += kGroup, to += stride) {
    for (int64_t i = 0; i < kGroup && k + i < end; ++i) {
      if constexpr (std::is_same_v<From, To>) {
        to[i] = from[k + i];
      } else {
        to[i] = ToF32(from[k + i]);
      }
    }
  }
}

// kGroup inputs of one output lie side by side; then come those of the next output.
template <class From, class To, int kGroup>
void FillPanel(absl::Span<const Source> sources, int64_t inputs, int64_t panel_outputs, To* panel) {
  for (int64_t k = 0; k < inputs; k += kInputsAtOnce<From>) {
    const int64_t end = std::min(k + kInputsAtOnce<From>, inputs);
    for (size_t i = 0; i < sources.size(); ++i) {
      const Source& source = sources[i];
      if (source.part->dtype != DTypeOf<From>()) continue;
      const auto* row =
          static_cast<const From*>(source.part->data) + source.row * source.part->stride;
      CopyInputs<From, To, kGroup>(row, k, end, kGroup * panel_outputs,
                                   panel + static_cast<int64_t>(i) * kGroup);
    }
  }
}

void FillPanel(absl::Span<const Source> sources, const PanelView& view, int64_t panel_outputs,
               std::byte* panel) {
  if (view.dtype == DType::kBf16) {
    FillPanel<Bf16, Bf16, 2>(sources, view.inputs, panel_outputs, reinterpret_cast<Bf16*>(panel));
    return;
  }
  auto* floats = reinterpret_cast<float*>(panel);
  FillPanel<float, float, 1>(sources, view.inputs, panel_outputs, floats);
  FillPanel<Bf16, float, 1>(sources, view.inputs, panel_outputs, floats);
}

}  // namespace

std::unique_ptr<CpuMatrix> CpuMatrix::Pack(absl::Span<const Tensor> parts, Precision precision,
                                           CpuIsa isa, ThreadPool& pool) {
  CHECK(!parts.empty());
  PanelView view;
  view.dtype = DType::kBf16;
  view.precision = precision;
  view.inputs = parts[0].cols;
  std::vector<Source> sources;
  for (const Tensor& part : parts) {
    CHECK_EQ(part.cols, view.inputs);
    CHECK_GE(part.stride, part.cols);
    if (part.dtype == DType::kF32) view.dtype = DType::kF32;
    for (int64_t row = 0; row < part.rows; ++row) sources.push_back(Source{&part, row});
  }
  view.outputs = static_cast<int64_t>(sources.size());

  const int64_t group = view.dtype == DType::kBf16 ? 2 : 1;
  const int64_t panel_outputs = PanelShapeOf(isa).outputs;
  const int64_t panels = (view.outputs + panel_outputs - 1) / panel_outputs;
  const int64_t panel_bytes =
      (view.inputs + group - 1) / group * group * panel_outputs * BytesOf(view.dtype);
  const int64_t bytes = panels * panel_bytes;
  auto memory = AllocateHostMemory(bytes);
  CHECK_OK(memory);
  view.data = memory->get();
  pool.ParallelFor(panels, 1, [&](WorkRange range) {
    for (int64_t panel = range.begin; panel < range.end; ++panel) {
      const size_t first = static_cast<size_t>(panel * panel_outputs);
      FillPanel(absl::MakeConstSpan(sources).subspan(first, static_cast<size_t>(panel_outputs)),
                view, panel_outputs, memory->get() + panel * panel_bytes);
    }
  });
  return std::unique_ptr<CpuMatrix>(new CpuMatrix(view, *std::move(memory), bytes, isa));
}

const PanelView& PanelsOf(const PackedMatrix* matrix, CpuIsa isa) {
  const auto* packed = dynamic_cast<const CpuMatrix*>(matrix);
  CHECK(packed != nullptr && packed->isa() == isa) << "the matrix was packed by another Ops";
  return packed->view();
}

}  // namespace troupe
