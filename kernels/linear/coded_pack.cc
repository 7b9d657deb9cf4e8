// CpuMatrix::PackCoded: codes in the layout of kernels/linear/coded_kernel.h.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/bf16.h"
#include "kernels/host_memory.h"
#include "kernels/linear/coded_kernel.h"
#include "kernels/linear/linear_pack.h"
#include "kernels/linear/panel_shape.h"

namespace troupe {
namespace {

struct Source {
  const CodedMatrix* part;
  int64_t row;
};

void StoreScale(float scale, ScaleFormat format, int64_t index, std::byte* to) {
  switch (format) {
    case ScaleFormat::kF32:
      std::memcpy(to + 4 * index, &scale, sizeof(scale));
      return;
    case ScaleFormat::kBf16: {
      const Bf16 rounded = ToBf16(scale);
      std::memcpy(to + 2 * index, &rounded, sizeof(rounded));
      return;
    }
    case ScaleFormat::kF16: {
      const uint16_t rounded = ToF16(scale);
      std::memcpy(to + 2 * index, &rounded, sizeof(rounded));
      return;
    }
    case ScaleFormat::kE8M0: {
      uint32_t bits;
      std::memcpy(&bits, &scale, sizeof(bits));
      to[index] = static_cast<std::byte>(bits >> 23);
      return;
    }
  }
}

uint32_t Code(const CodedMatrix& part, const std::byte* row, int64_t col) {
  if (BitsOf(part.format) == 8) return std::to_integer<uint32_t>(row[col]);
  return std::to_integer<uint32_t>(row[col / 2]) >> 4 * (col % 2) & 15;
}

// Where the code of input `i` of a step stands in its word.
int BitInWord(CodeFormat format, int i) {
  if (BitsOf(format) == 4) return i % 2 * 16 + i / 2 * 4;
  return format == CodeFormat::kFp8E4M3 ? i % 2 * 16 + i / 2 * 8 : i * 8;
}

class PanelFiller {
 public:
  PanelFiller(const PanelView& view, int64_t outputs) : view_(view), outputs_(outputs) {}

  // Output `lane` of the panel at `to`.
  void Fill(const Source& source, int64_t lane, std::byte* to) const {
    const std::byte* row = source.part->codes + source.row * source.part->row_bytes();
    if (view_.codes.format == CodeFormat::kF16) {
      for (int64_t k = 0; k < view_.inputs; ++k) {
        std::memcpy(to + (k * outputs_ + lane) * 2, row + 2 * k, 2);
      }
      return;
    }
    for (int64_t group = 0; group < view_.codes.groups; ++group) {
      FillGroup(source, row, group, lane, to + group * view_.codes.group_bytes);
    }
  }

 private:
  void FillGroup(const Source& source, const std::byte* row, int64_t group, int64_t lane,
                 std::byte* to) const {
    const CodedMatrix& part = *source.part;
    const int inputs = 32 / BitsOf(part.format);
    const uint32_t flip = part.format == CodeFormat::kInt8 ? 0x80 : 0;
    const int64_t first = group * view_.codes.group;
    const int64_t count = std::min(view_.codes.group, PaddedInputs(view_) - first);
    const int64_t steps = (count + inputs - 1) / inputs;
    for (int64_t step = 0; step < steps; ++step) {
      uint32_t word = 0;
      for (int i = 0; i < inputs; ++i) {
        const int64_t col = first + step * inputs + i;
        if (col >= view_.inputs) break;
        word |= (Code(part, row, col) ^ flip) << BitInWord(part.format, i);
      }
      std::memcpy(to + (step * outputs_ + lane) * 4, &word, sizeof(word));
    }
    std::byte* scales = to + steps * outputs_ * 4;
    const int64_t index = source.row * part.groups() + group;
    StoreScale(part.scales[index], view_.codes.scale_format, lane, scales);
    if (!view_.codes.zeros) return;
    const int middle = MiddleOf(part.format);
    const int zero = part.zeros != nullptr ? part.zeros[index] : middle;
    scales[outputs_ * BytesOf(view_.codes.scale_format) + lane] =
        static_cast<std::byte>(zero - middle);
  }

  const PanelView& view_;
  int64_t outputs_;
};

int64_t GroupBytes(const PanelView& view, int64_t inputs, int64_t outputs) {
  const int64_t step = 32 / BitsOf(view.codes.format);
  const int64_t codes = (inputs + step - 1) / step * outputs * 4;
  const int64_t scales = outputs * BytesOf(view.codes.scale_format);
  const int64_t bytes = codes + scales + (view.codes.zeros ? outputs : 0);
  return (bytes + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}

PanelView DescribePanels(absl::Span<const CodedMatrix> parts, Precision precision,
                         int64_t panel_outputs) {
  CHECK(!parts.empty());
  CHECK(!RoundsToIntegers(precision) || SuitsIntegerProducts(parts[0]));
  CHECK(precision != Precision::kFp8Groups || SuitsFp8Products(parts[0]));
  PanelView view;
  view.precision = precision;
  view.inputs = parts[0].cols;
  PanelCodes& codes = view.codes;
  codes.format = parts[0].format;
  codes.scale_format = parts[0].scale_format;
  for (const CodedMatrix& part : parts) {
    CHECK(PackTogether(parts[0], part));
    view.outputs += part.rows;
    codes.zeros = codes.zeros || part.zeros != nullptr;
    if (part.scale_format != codes.scale_format) codes.scale_format = ScaleFormat::kF32;
  }
  if (!HasScales(codes.format)) {
    codes.panel_bytes = view.inputs * panel_outputs * 2;
    return view;
  }
  codes.groups = parts[0].groups();
  // A single group covers the padding as well.
  codes.group = codes.groups == 1 ? (view.inputs + 7) / 8 * 8 : parts[0].group;
  codes.group_bytes = GroupBytes(view, codes.group, panel_outputs);
  codes.panel_bytes = 1;  // PaddedInputs asks whether there are codes
  const int64_t last = PaddedInputs(view) - (codes.groups - 1) * codes.group;
  codes.panel_bytes =
      (codes.groups - 1) * codes.group_bytes + GroupBytes(view, last, panel_outputs);
  return view;
}

}  // namespace

std::unique_ptr<CpuMatrix> CpuMatrix::PackCoded(absl::Span<const CodedMatrix> parts,
                                                Precision precision, CpuIsa isa, ThreadPool& pool) {
  const int64_t panel_outputs = PanelShapeOf(isa).outputs;
  PanelView view = DescribePanels(parts, precision, panel_outputs);
  std::vector<Source> sources;
  for (const CodedMatrix& part : parts) {
    for (int64_t row = 0; row < part.rows; ++row) sources.push_back({&part, row});
  }
  const int64_t panels = (view.outputs + panel_outputs - 1) / panel_outputs;
  const int64_t bytes = panels * view.codes.panel_bytes;
  auto memory = AllocateHostMemory(bytes);
  CHECK_OK(memory);
  view.data = memory->get();
  const PanelFiller filler(view, panel_outputs);
  pool.ParallelFor(panels, 1, [&](WorkRange range) {
    for (int64_t panel = range.begin; panel < range.end; ++panel) {
      const int64_t first = panel * panel_outputs;
      const int64_t count = std::min(panel_outputs, view.outputs - first);
      for (int64_t lane = 0; lane < count; ++lane) {
        filler.Fill(sources[static_cast<size_t>(first + lane)], lane,
                    memory->get() + panel * view.codes.panel_bytes);
      }
    }
  });
  return std::unique_ptr<CpuMatrix>(new CpuMatrix(view, *std::move(memory), bytes, isa));
}

}  // namespace troupe
