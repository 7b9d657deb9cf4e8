// CudaCodes: codes go to the device as they come, and are put in order there.
#include <bit>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/linear/coded_cuda.cuh"
#include "kernels/linear/coded_kinds.h"
#include "kernels/linear/coded_unpack.cuh"

namespace troupe {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return CeilDiv(bytes, kAlignment) * kAlignment; }

// Where the pieces of a matrix begin in its memory.
struct Pieces {
  int64_t codes_bytes;
  int64_t scales_bytes;
  int64_t zeros_bytes;

  Pieces(const CodedShape& shape, CodedKind kind)
      : codes_bytes(
            Aligned(shape.tiles() * (shape.padded_inputs() / UnitInputs(kind)) * kCodedUnitBytes)),
        scales_bytes(
            Aligned(shape.tiles() * shape.groups() * kCodedTileOutputs * ScaleBytes(kind))),
        zeros_bytes(StoresZeros(kind) ? Aligned(shape.tiles() * shape.groups() * kCodedTileOutputs)
                                      : 0) {}
  int64_t total() const { return codes_bytes + scales_bytes + zeros_bytes; }
};

// The parts' memory on the device, for as long as they are being put in order.
class Upload {
 public:
  Upload(CudaArena& arena, cudaStream_t stream, CudaErrors& errors)
      : arena_(arena), stream_(stream), errors_(errors) {}

  void* Room(int64_t bytes) {
    auto memory = arena_.Allocate(bytes);
    if (!memory.ok()) {
      errors_.Note(memory.status());
      return nullptr;
    }
    kept_.push_back(*std::move(memory));
    return kept_.back().get();
  }
  void Copy(void* to, const void* from, int64_t bytes) {
    if (!errors_.ok()) return;
    CudaOk(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
           "copy of weights to the device", errors_);
  }

 private:
  CudaArena& arena_;
  cudaStream_t stream_;
  CudaErrors& errors_;
  std::vector<std::shared_ptr<std::byte>> kept_;
};

RawCodes UploadRaw(absl::Span<const CodedMatrix> parts, const CodedShape& shape, CodedKind kind,
                   Upload& upload) {
  const int64_t groups = parts[0].groups();
  RawCodes raw;
  raw.row_bytes = parts[0].row_bytes();
  raw.groups = groups;
  auto* codes = static_cast<uint8_t*>(upload.Room(shape.outputs * raw.row_bytes));
  auto* scales = static_cast<float*>(upload.Room(shape.outputs * groups * 4));
  uint8_t* zeros =
      StoresZeros(kind) ? static_cast<uint8_t*>(upload.Room(shape.outputs * groups)) : nullptr;
  const std::vector<uint8_t> middle(
      zeros == nullptr ? 0 : static_cast<size_t>(shape.outputs * groups),
      static_cast<uint8_t>(MiddleOf(parts[0].format)));
  raw.codes = codes;
  raw.scales = scales;
  raw.zeros = zeros;
  for (const CodedMatrix& part : parts) {
    upload.Copy(codes, part.codes, part.rows * raw.row_bytes);
    upload.Copy(scales, part.scales, part.rows * groups * 4);
    codes += part.rows * raw.row_bytes;
    scales += part.rows * groups;
    if (zeros == nullptr) continue;
    upload.Copy(zeros, part.zeros != nullptr ? part.zeros : middle.data(), part.rows * groups);
    zeros += part.rows * groups;
  }
  return raw;
}

}  // namespace

CudaCodes::CudaCodes(const CodedShape& shape, CodedKind kind, int64_t bytes)
    : PackedMatrix(shape.outputs, shape.inputs, Precision::kBf16, bytes),
      shape_(shape),
      kind_(kind) {
  view_.outputs = static_cast<int>(shape.outputs);
  view_.inputs = static_cast<int>(shape.inputs);
  view_.padded_inputs = static_cast<int>(shape.padded_inputs());
  view_.groups = static_cast<int>(shape.groups());
  constexpr int kOneGroup = 30;
  view_.group_bits =
      view_.groups == 1 ? kOneGroup : std::countr_zero(static_cast<uint64_t>(shape.group));
  view_.segments = SegmentsOf(shape);
  view_.segment_inputs = static_cast<int>(SegmentInputs(shape, view_.segments));
}

std::unique_ptr<CudaCodes> CudaCodes::Pack(absl::Span<const CodedMatrix> parts, Precision precision,
                                           CudaArena& arena, cudaStream_t stream,
                                           CudaErrors& errors) {
  CHECK(!parts.empty());
  CodedShape shape = {.inputs = parts[0].cols, .group = std::min(parts[0].group, parts[0].cols)};
  ScaleFormat scale_format = parts[0].scale_format;
  bool zeros = false;
  for (const CodedMatrix& part : parts) {
    CHECK(PackTogether(parts[0], part));
    shape.outputs += part.rows;
    zeros = zeros || part.zeros != nullptr;
    if (part.scale_format != scale_format) scale_format = ScaleFormat::kF32;
  }
  if (!TakesCodes(shape, parts[0].format, scale_format, precision)) return nullptr;
  const CodedKind kind = KindOf(parts[0].format, scale_format, zeros);
  const Pieces pieces(shape, kind);
  std::unique_ptr<CudaCodes> matrix(new CudaCodes(shape, kind, pieces.total()));
  auto memory = arena.Allocate(pieces.total());
  if (!memory.ok()) {
    errors.Note(memory.status());
    return matrix;
  }
  matrix->memory_ = *std::move(memory);
  CodedView& view = matrix->view_;
  std::byte* at = matrix->memory_.get();
  auto* codes = reinterpret_cast<uint4*>(at);
  auto* scales = at + pieces.codes_bytes;
  auto* zero_bytes = reinterpret_cast<uint8_t*>(scales + pieces.scales_bytes);
  view.codes = codes;
  view.scales = scales;
  if (StoresZeros(kind)) view.zeros = reinterpret_cast<const uint16_t*>(zero_bytes);
  Upload upload(arena, stream, errors);
  const RawCodes raw = UploadRaw(parts, shape, kind, upload);
  if (!errors.ok()) return matrix;
  const int64_t lanes = shape.tiles() * (view.padded_inputs / UnitInputs(kind)) * kWarpSize;
  const int64_t scale_count = shape.tiles() * view.groups * kCodedTileOutputs;
  WithCodedKind(kind, [&](auto known) {
    constexpr CodedKind kKind = decltype(known)::value;
    PackCodesKernel<kKind>
        <<<static_cast<unsigned>(CeilDiv(lanes, kPackThreads)), kPackThreads, 0, stream>>>(
            raw, view, codes, lanes);
    PackScalesKernel<kKind>
        <<<static_cast<unsigned>(CeilDiv(scale_count, kPackThreads)), kPackThreads, 0, stream>>>(
            raw, view, scales, zero_bytes, scale_count);
  });
  CudaOk(cudaGetLastError(), "packing of codes", errors);
  // The parts and their copies may go away.
  CudaOk(cudaStreamSynchronize(stream), "packing of codes", errors);
  return matrix;
}

const CudaCodes* AsCodes(const PackedMatrix* matrix) {
  return dynamic_cast<const CudaCodes*>(matrix);
}

}  // namespace troupe
