#include "worker/weight_loader.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "kernels/bf16.h"
#include "kernels/element.h"
#include "model/coded_weights.h"

namespace troupe {
namespace {

// In which a matrix's values lose nothing.
DType DTypeOf(const MatrixView& matrix) {
  return matrix.value_dtype() == StoredDType::kBF16 ? DType::kBf16 : DType::kF32;
}

DType DTypeOf(const std::vector<LinearWeights>& parts) {
  const bool bf16 = std::all_of(parts.begin(), parts.end(), [](const LinearWeights& part) {
    return DTypeOf(part.weight) == DType::kBf16;
  });
  return bf16 ? DType::kBf16 : DType::kF32;
}

bool IsPlain(const LinearWeights& part) {
  return std::holds_alternative<PlainStorage>(part.weight.storage);
}

// What --quantize turns to FP8 or integers, or finds as such.
bool HoldsFp8(const MatrixView& matrix) {
  return std::holds_alternative<PlainStorage>(matrix.storage) ||
         std::holds_alternative<Fp8Storage>(matrix.storage);
}
bool HoldsIntegers(const MatrixView& matrix) {
  return std::holds_alternative<PlainStorage>(matrix.storage) ||
         std::holds_alternative<GroupedStorage>(matrix.storage);
}

Precision ByOption(const MatrixView& matrix, const std::optional<IntegerFormat>& quantize,
                   Precision otherwise) {
  if (!quantize.has_value() || !quantize->activations) return otherwise;
  if (quantize->fp8) return HoldsFp8(matrix) ? Precision::kFp8Groups : otherwise;
  return HoldsIntegers(matrix) ? Precision::kInt8Groups : otherwise;
}

// The matrix's values as `dtype`: where they lie, or else decoded into `memory`.
Tensor ValuesOf(const MatrixView& matrix, DType dtype, std::vector<std::byte>& memory) {
  Tensor tensor{nullptr, dtype, matrix.rows, matrix.cols, matrix.cols};
  const StoredDType stored = dtype == DType::kF32 ? StoredDType::kF32 : StoredDType::kBF16;
  const std::byte* in_place = matrix.value_dtype() == stored ? matrix.Contiguous() : nullptr;
  if (in_place != nullptr) {
    tensor.data = const_cast<std::byte*>(in_place);
    return tensor;
  }
  memory.resize(matrix.elements() * BytesOf(dtype));
  tensor.data = memory.data();
  std::vector<float> row(matrix.cols);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    matrix.ReadRows(r, 1, absl::MakeSpan(row));
    for (int64_t c = 0; c < matrix.cols; ++c) {
      StoreElement(tensor.data, dtype, r * matrix.cols + c, row[c]);
    }
  }
  return tensor;
}

}  // namespace

WeightLoader::WeightLoader(Ops* ops, const LoadOptions& options, float norm_weight_offset,
                           Progress progress)
    : ops_(ops),
      precision_(options.mode == ComputeMode::kF32 ? Precision::kF32 : Precision::kBf16),
      quantize_(options.quantize),
      threads_(std::max(options.threads, 1)),
      packed_(options.packed),
      norm_weight_offset_(norm_weight_offset),
      progress_(std::move(progress)) {}

void WeightLoader::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void WeightLoader::Report(int64_t stored_bytes) {
  bytes_done_ += stored_bytes;
  if (progress_ && status_.ok()) progress_(bytes_done_);
}

DeviceTensor WeightLoader::ToDevice(const void* data, DType dtype, int64_t rows, int64_t cols) {
  const int64_t bytes = rows * cols * BytesOf(dtype);
  DeviceTensor tensor;
  auto memory = ops_->Allocate(bytes);
  if (!memory.ok()) {
    Fail(memory.status());
    return tensor;
  }
  ops_->Upload(memory->get(), data, bytes);
  tensor.memory = *std::move(memory);
  tensor.view = {tensor.memory.get(), dtype, rows, cols, cols};
  device_bytes_ += bytes;
  return tensor;
}

DeviceTensor WeightLoader::ToDevice(const std::vector<float>& values, int64_t cols) {
  return ToDevice(values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols);
}

DeviceTensor WeightLoader::Floats(const TensorView& view) {
  if (view.empty()) return {};
  Report(static_cast<int64_t>(view.bytes.size()));
  return ToDevice(ReadAsF32(view), view.shape.back());
}

DeviceTensor WeightLoader::Values(const std::vector<float>& values) {
  return ToDevice(values, static_cast<int64_t>(values.size()));
}

Buffer WeightLoader::Integers(const std::vector<int32_t>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(int32_t));
  auto memory = ops_->Allocate(bytes);
  if (!memory.ok()) {
    Fail(memory.status());
    return nullptr;
  }
  ops_->Upload(memory->get(), values.data(), bytes);
  device_bytes_ += bytes;
  return *std::move(memory);
}

DeviceTensor WeightLoader::Norm(const TensorView& view) {
  if (view.empty()) return {};
  Report(static_cast<int64_t>(view.bytes.size()));
  std::vector<float> values = ReadAsF32(view);
  for (float& value : values) value += norm_weight_offset_;
  return ToDevice(values, view.shape.back());
}

DeviceTensor WeightLoader::SmallMatrix(const LinearWeights& weights) {
  std::vector<float> values(weights.weight.elements());
  weights.weight.ReadRows(0, weights.weight.rows, absl::MakeSpan(values));
  Report(weights.weight.stored_bytes());
  return ToDevice(values, weights.weight.cols);
}

DeviceTensor WeightLoader::Table(const TensorView& view) {
  Report(static_cast<int64_t>(view.bytes.size()));
  if (view.dtype == StoredDType::kBF16) {
    return ToDevice(view.bytes.data(), DType::kBf16, view.shape[0], view.shape[1]);
  }
  return ToDevice(ReadAsF32(view), view.shape[1]);
}

std::unique_ptr<PackedMatrix> WeightLoader::Matrix(const std::vector<LinearWeights>& parts) {
  std::unique_ptr<PackedMatrix> packed = Pack(parts, precision_, quantize_);
  if (packed_) packed_(packed.get(), parts);
  return packed;
}

std::unique_ptr<PackedMatrix> WeightLoader::HeadMatrix(const LinearWeights& weights) {
  std::optional<IntegerFormat> format = quantize_;
  if (format.has_value()) format = IntegerFormat{.bits = 8, .group = 128};
  // FP8 checkpoints leave it as it is.
  if (quantize_.has_value() && quantize_->fp8) format = std::nullopt;
  std::unique_ptr<PackedMatrix> packed = Pack({weights}, precision_, format);
  if (packed_) packed_(packed.get(), {weights});
  return packed;
}

std::unique_ptr<PackedMatrix> WeightLoader::ExactMatrix(const std::vector<LinearWeights>& parts) {
  return Pack(parts, Precision::kF32, std::nullopt);
}

Precision WeightLoader::PrecisionOf(const std::vector<LinearWeights>& parts, Precision otherwise,
                                    const std::optional<IntegerFormat>& quantize) {
  std::vector<Precision> wanted;
  for (const LinearWeights& part : parts) {
    wanted.push_back(part.weight.products.value_or(ByOption(part.weight, quantize, otherwise)));
    if (wanted.back() == wanted[0]) continue;
    Fail(absl::UnimplementedError(
        absl::StrCat(part.weight.name(), ": found other activations than for ",
                     parts[0].weight.name(), ", wanted the same: one product forms both")));
    return otherwise;
  }
  if (RoundsToIntegers(wanted[0]) && !ops_->HasIntegerProducts()) {
    Fail(absl::UnimplementedError(
        absl::StrCat(parts[0].weight.name(),
                     ": found activations that become integers of 8 bits, wanted none on ",
                     ops_->Describe(), ", which has no such products; the CPU has them")));
    return otherwise;
  }
  return wanted[0];
}

std::unique_ptr<ExpertList> WeightLoader::ListExperts(absl::Span<const ExpertWeights> experts) {
  std::unique_ptr<ExpertList> list = ops_->ListExperts(experts);
  Fail(ops_->status());
  return list;
}

std::unique_ptr<PackedMatrix> WeightLoader::Pack(const std::vector<LinearWeights>& parts,
                                                 Precision precision,
                                                 const std::optional<IntegerFormat>& quantize) {
  for (const LinearWeights& part : parts) Fail(CheckGroupsWhole(part.weight));
  const Precision products = PrecisionOf(parts, precision, quantize);
  std::unique_ptr<PackedMatrix> packed = PackCodes(parts, products, quantize);
  if (packed == nullptr && RoundsToIntegers(products)) {
    Fail(absl::UnimplementedError(
        absl::StrCat(parts[0].weight.name(),
                     ": found activations that become integers of 8 bits, wanted integer "
                     "weights in groups of neighbours, of at most ",
                     kMostIntegerInputs, ", all alike where one product forms several")));
  }
  if (packed == nullptr && products == Precision::kFp8Groups) {
    Fail(absl::UnimplementedError(
        absl::StrCat(parts[0].weight.name(),
                     ": found weights that --quantize fp8 would give activations of FP8, wanted "
                     "FP8 in groups of ",
                     kFp8Inputs, " inputs")));
  }
  if (packed == nullptr) packed = PackPlain(parts, precision);
  for (const LinearWeights& part : parts) Report(part.weight.stored_bytes());
  Fail(ops_->status());
  device_bytes_ += packed->bytes();
  return packed;
}

std::unique_ptr<PackedMatrix> WeightLoader::PackCodes(
    const std::vector<LinearWeights>& parts, Precision precision,
    const std::optional<IntegerFormat>& quantize) {
  std::vector<CodedWeights> codes;
  std::vector<CodedMatrix> views;
  for (const LinearWeights& part : parts) {
    std::optional<CodedWeights> coded = quantize.has_value() && IsPlain(part)
                                            ? QuantizeMatrix(part.weight, *quantize, threads_)
                                            : ReadCoded(part.weight);
    if (!coded.has_value()) return nullptr;
    codes.push_back(*std::move(coded));
    views.push_back(codes.back().view());
    if (!PackTogether(views[0], views.back())) return nullptr;
    if (RoundsToIntegers(precision) && !SuitsIntegerProducts(views.back())) return nullptr;
    if (precision == Precision::kFp8Groups && !SuitsFp8Products(views.back())) return nullptr;
  }
  return ops_->PackCoded(views, precision);
}

std::unique_ptr<PackedMatrix> WeightLoader::PackPlain(const std::vector<LinearWeights>& parts,
                                                      Precision precision) {
  const DType dtype = DTypeOf(parts);
  std::deque<std::vector<std::byte>> decoded;
  std::vector<Tensor> tensors;
  for (const LinearWeights& part : parts) {
    tensors.push_back(ValuesOf(part.weight, dtype, decoded.emplace_back()));
  }
  return ops_->Pack(tensors, precision);
}

std::unique_ptr<PackedMatrix> WeightLoader::PackValues(std::vector<float> values, int64_t cols,
                                                       DType dtype) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.rows = static_cast<int64_t>(values.size()) / cols;
  tensor.cols = tensor.stride = cols;
  tensor.data = values.data();
  std::vector<Bf16> narrow;
  if (dtype == DType::kBf16) {
    for (const float value : values) narrow.push_back(ToBf16(value));
    tensor.data = narrow.data();
  }
  std::unique_ptr<PackedMatrix> packed = ops_->Pack({tensor}, precision_);
  Fail(ops_->status());
  device_bytes_ += packed->bytes();
  return packed;
}

std::unique_ptr<PackedMatrix> WeightLoader::Rows(const LinearWeights& weights, int64_t first,
                                                 int64_t count) {
  const MatrixView& matrix = weights.weight;
  // So that the parts of a matrix add up to it.
  const auto bytes_before = [&](int64_t row) { return matrix.stored_bytes() * row / matrix.rows; };
  Report(bytes_before(first + count) - bytes_before(first));
  std::vector<float> values(count * matrix.cols);
  matrix.ReadRows(first, count, absl::MakeSpan(values));
  return PackValues(std::move(values), matrix.cols, DTypeOf(matrix));
}

std::unique_ptr<PackedMatrix> WeightLoader::TransposedRows(const LinearWeights& weights,
                                                           int64_t first, int64_t count) {
  const MatrixView& matrix = weights.weight;
  std::vector<float> values(count * matrix.cols);
  matrix.ReadRows(first, count, absl::MakeSpan(values));
  std::vector<float> transposed(values.size());
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t col = 0; col < matrix.cols; ++col) {
      transposed[col * count + row] = values[row * matrix.cols + col];
    }
  }
  return PackValues(std::move(transposed), count, DTypeOf(matrix));
}

DeviceTensor WeightLoader::Bias(const std::vector<LinearWeights>& parts) {
  bool any = false;
  std::vector<float> values;
  for (const LinearWeights& part : parts) {
    if (part.bias.empty()) {
      values.resize(values.size() + part.out_features, 0.0F);
      continue;
    }
    any = true;
    const std::vector<float> bias = ReadAsF32(part.bias);
    values.insert(values.end(), bias.begin(), bias.end());
    Report(part.bias.stored_bytes());
  }
  return any ? Values(values) : DeviceTensor();
}

}  // namespace troupe
