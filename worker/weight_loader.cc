#include "worker/weight_loader.h"

#include <deque>
#include <utility>

namespace troupe {
namespace {

bool AreStoredAs(StoredDType dtype, const std::vector<LinearWeights>& parts) {
  for (const LinearWeights& part : parts) {
    if (part.weight.value_dtype() != dtype || part.weight.Contiguous() == nullptr) return false;
  }
  return true;
}

}  // namespace

WeightLoader::WeightLoader(Ops* ops, ComputeMode mode, float norm_weight_offset, Progress progress)
    : ops_(ops),
      precision_(mode == ComputeMode::kF32 ? Precision::kF32 : Precision::kBf16),
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
  return Pack(parts, precision_);
}

std::unique_ptr<PackedMatrix> WeightLoader::ExactMatrix(const std::vector<LinearWeights>& parts) {
  return Pack(parts, Precision::kF32);
}

std::unique_ptr<PackedMatrix> WeightLoader::Pack(const std::vector<LinearWeights>& parts,
                                                 Precision precision) {
  const bool f32 = AreStoredAs(StoredDType::kF32, parts);
  const bool as_stored = f32 || AreStoredAs(StoredDType::kBF16, parts);
  std::deque<std::vector<float>> decoded;
  std::vector<Tensor> tensors;
  for (const LinearWeights& part : parts) {
    Tensor tensor;
    tensor.rows = part.out_features;
    tensor.cols = tensor.stride = part.in_features;
    if (as_stored) {
      tensor.dtype = f32 ? DType::kF32 : DType::kBf16;
      tensor.data = const_cast<std::byte*>(part.weight.Contiguous());
    } else {
      std::vector<float>& values = decoded.emplace_back(part.weight.elements());
      part.weight.ReadRows(0, part.weight.rows, absl::MakeSpan(values));
      tensor.data = values.data();
    }
    tensors.push_back(tensor);
    Report(part.weight.stored_bytes());
  }
  std::unique_ptr<PackedMatrix> packed = ops_->Pack(tensors, precision);
  Fail(ops_->status());
  device_bytes_ += packed->bytes();
  return packed;
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
    Report(static_cast<int64_t>(part.bias.bytes.size()));
  }
  return any ? Values(values) : DeviceTensor();
}

}  // namespace troupe
