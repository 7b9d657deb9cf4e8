#include "worker/calibration.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

class CalibrationOps : public Ops {
 public:
  CalibrationOps(std::unique_ptr<Ops> inner, Calibration* calibration)
      : inner_(std::move(inner)), calibration_(calibration) {}

  std::string Describe() const override { return inner_->Describe() + ", observed"; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  std::unique_ptr<PackedMatrix> Pack(absl::Span<const Tensor> parts, Precision precision) override {
    return inner_->Pack(parts, precision);
  }
  std::unique_ptr<PackedMatrix> PackCoded(absl::Span<const CodedMatrix> parts,
                                          Precision precision) override {
    return inner_->PackCoded(parts, precision);
  }
  bool HasIntegerProducts() const override { return inner_->HasIntegerProducts(); }
  void Upload(void* to, const void* from, int64_t bytes) override {
    inner_->Upload(to, from, bytes);
  }
  void Clear(void* to, int64_t bytes) override { inner_->Clear(to, bytes); }
  void BeginStep() override { inner_->BeginStep(); }
  const void* Stage(const void* from, int64_t bytes) override { return inner_->Stage(from, bytes); }
  void* Fetch(void* from, int64_t bytes) override { return inner_->Fetch(from, bytes); }
  void Synchronize() override { inner_->Synchronize(); }
  absl::Status status() const override { return inner_->status(); }

  void Embed(const EmbedParams& params) override { inner_->Embed(params); }
  void RmsNorm(const RmsNormParams& params) override { inner_->RmsNorm(params); }
  void SquareSums(const SquareSumsParams& params) override { inner_->SquareSums(params); }
  void Linear(const LinearParams& params) override {
    inner_->Synchronize();
    calibration_->Observe(params.w, params.x);
    inner_->Linear(params);
  }
  void HeadNormRope(const HeadNormRopeParams& params) override { inner_->HeadNormRope(params); }
  void KvWrite(const KvWriteParams& params) override { inner_->KvWrite(params); }
  void QkvWrite(const QkvWriteParams& params) override { inner_->QkvWrite(params); }
  void HeadGate(const HeadGateParams& params) override { inner_->HeadGate(params); }
  void PagedAttention(const PagedAttentionParams& params) override {
    inner_->PagedAttention(params);
  }
  void MlaAttention(const MlaAttentionParams& params) override { inner_->MlaAttention(params); }
  void NsaCompress(const NsaCompressParams& params) override { inner_->NsaCompress(params); }
  void NsaSelect(const NsaSelectParams& params) override { inner_->NsaSelect(params); }
  void NsaAttention(const NsaAttentionParams& params) override { inner_->NsaAttention(params); }
  void Swiglu(const SwigluParams& params) override { inner_->Swiglu(params); }
  void MoeRoute(const MoeRouteParams& params) override { inner_->MoeRoute(params); }
  void MoeAssign(const MoeAssignParams& params) override { inner_->MoeAssign(params); }
  void MoeExperts(const MoeExpertsParams& params) override;
  void RowAdd(const RowAddParams& params) override { inner_->RowAdd(params); }
  void Sample(const SampleParams& params) override { inner_->Sample(params); }
  void PageCopy(const PageCopyParams& params) override { inner_->PageCopy(params); }

 private:
  // The tokens that go to an expert, and what its result counts for them.
  struct Share {
    std::vector<int64_t> tokens;
    std::vector<float> weights;
  };
  void AddExpert(const ExpertWeights& expert, const Share& share, const MoeExpertsParams& params);

  std::unique_ptr<Ops> inner_;
  Calibration* calibration_;
};

Tensor View(std::vector<float>& values, int64_t rows, int64_t cols) {
  values.resize(static_cast<size_t>(rows * cols));
  return Tensor{values.data(), DType::kF32, rows, cols, cols};
}

void CalibrationOps::AddExpert(const ExpertWeights& expert, const Share& share,
                               const MoeExpertsParams& params) {
  const auto count = static_cast<int64_t>(share.tokens.size());
  if (count == 0) return;
  const int64_t hidden = params.x.cols;
  std::vector<float> inputs;
  std::vector<float> gate_up;
  std::vector<float> inner;
  std::vector<float> outputs;
  const Tensor x = View(inputs, count, hidden);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(params.x.f32(share.tokens[i]), hidden, x.f32(i));
  }
  const Tensor halves = View(gate_up, count, expert.gate_up->outputs());
  const Tensor activated = View(inner, count, expert.down->inputs());
  const Tensor y = View(outputs, count, hidden);
  Linear({.x = x, .w = expert.gate_up, .out = halves, .bias = expert.gate_up_bias});
  inner_->Swiglu({.gate_up = halves, .out = activated, .activation = params.activation});
  Linear({.x = activated, .w = expert.down, .out = y, .bias = expert.down_bias});
  inner_->Synchronize();
  for (int64_t i = 0; i < count; ++i) {
    float* out = params.out.f32(share.tokens[i]);
    for (int64_t c = 0; c < hidden; ++c) out[c] += share.weights[i] * y.f32(i)[c];
  }
}

void CalibrationOps::MoeExperts(const MoeExpertsParams& params) {
  inner_->Synchronize();
  const ExpertList& experts = *params.experts;
  std::vector<Share> shares(experts.size());
  Share everyone;
  for (int64_t token = 0; token < params.x.rows; ++token) {
    for (int k = 0; k < params.top_k; ++k) {
      if (params.chosen[token * params.top_k + k] < 0) continue;
      Share& share = shares[params.chosen[token * params.top_k + k]];
      share.tokens.push_back(token);
      share.weights.push_back(params.weights[token * params.top_k + k]);
    }
    everyone.tokens.push_back(token);
    everyone.weights.push_back(1.0F);
    if (!params.accumulate) std::fill_n(params.out.f32(token), params.out.cols, 0.0F);
  }
  for (int e = 0; e < experts.size(); ++e) AddExpert(experts[e], shares[e], params);
  if (params.shared != nullptr) AddExpert(*params.shared, everyone, params);
}

}  // namespace

void InputMoments::Add(const Tensor& x) {
  if (products.empty()) {
    inputs = x.cols;
    products.resize(static_cast<size_t>(inputs * inputs));
  }
  tokens += x.rows;
  for (int64_t token = 0; token < x.rows; ++token) {
    const float* values = x.f32(token);
    for (int64_t i = 0; i < inputs; ++i) {
      float* row = products.data() + i * inputs;
      for (int64_t j = 0; j <= i; ++j) row[j] += values[i] * values[j];
    }
  }
}

void Calibration::Name(const PackedMatrix* matrix, const std::vector<LinearWeights>& parts) {
  const auto moments = std::make_shared<InputMoments>();
  packed_[matrix] = moments;
  for (const LinearWeights& part : parts) matrices_[std::string(part.weight.name())] = moments;
}

void Calibration::Observe(const PackedMatrix* matrix, const Tensor& x) {
  const auto known = packed_.find(matrix);
  if (known != packed_.end()) known->second->Add(x);
}

std::unique_ptr<Ops> MakeCalibrationOps(std::unique_ptr<Ops> inner, Calibration* calibration) {
  return std::make_unique<CalibrationOps>(std::move(inner), calibration);
}

}  // namespace troupe
