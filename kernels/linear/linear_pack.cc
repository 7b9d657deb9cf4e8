#include "kernels/linear/linear_pack.h"

#include <algorithm>
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

template <class From, class To>
void CopyRow(const Source& source, int64_t inputs, int64_t group, int64_t stride, To* to) {
  const From* from = static_cast<const From*>(source.part->data) + source.row * source.part->stride;
  for (int64_t k = 0; k < inputs; ++k) {
    To& value = to[k / group * stride + k % group];
    if constexpr (std::is_same_v<From, To>) {
      value = from[k];
    } else {
      value = ToF32(from[k]);
    }
  }
}

// `group` inputs of one output lie side by side; then come those of the next output.
void FillPanel(absl::Span<const Source> sources, const PanelView& view, int64_t group,
               int64_t panel_outputs, std::byte* panel) {
  const int64_t stride = group * panel_outputs;
  for (size_t i = 0; i < sources.size(); ++i) {
    const int64_t offset = static_cast<int64_t>(i) * group;
    if (view.dtype == DType::kBf16) {
      CopyRow<Bf16>(sources[i], view.inputs, group, stride,
                    reinterpret_cast<Bf16*>(panel) + offset);
    } else if (sources[i].part->dtype == DType::kBf16) {
      CopyRow<Bf16>(sources[i], view.inputs, group, stride,
                    reinterpret_cast<float*>(panel) + offset);
    } else {
      CopyRow<float>(sources[i], view.inputs, group, stride,
                     reinterpret_cast<float*>(panel) + offset);
    }
  }
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
                view, group, panel_outputs, memory->get() + panel * panel_bytes);
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
