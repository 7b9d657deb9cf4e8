// The runner against what the model's fp32 reference gives, through paged state and the kernels
// that serve. models/abacus/MODEL.md says what each golden tensor is.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/golden_file.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using Logits = RunnerHarness::Logits;

// MODEL.md: fp32 engines agree to about 1e-4 in logits.
constexpr float kLogitTolerance = 1e-3F;
constexpr float kGateTolerance = 1e-4F;
// Of the largest value: the residual stream reaches 350, where an f32 step is 3e-5.
constexpr float kHiddenTolerance = 1e-4F;
constexpr float kThreshold = 0.3F;

float Difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    // A NaN must not compare as small.
    worst = std::isfinite(a[i]) ? std::max(worst, std::abs(a[i] - b[i])) : INFINITY;
  }
  return worst;
}

float Largest(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

float Difference(const Logits& a, const Logits& b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    worst = std::max(worst, Difference(a[i], b[i]));
  }
  return worst;
}

// By how much the best logit leads.
float Margin(std::vector<float> logits) {
  std::nth_element(logits.begin(), logits.begin() + 1, logits.end(), std::greater<>());
  return logits[0] - logits[1];
}

// One runner serves all tests of a mode: a sequence leaves nothing behind.
RunnerHarness& Harness(ComputeMode mode) {
  static std::map<ComputeMode, std::unique_ptr<RunnerHarness>> harnesses;
  std::unique_ptr<RunnerHarness>& harness = harnesses[mode];
  if (harness == nullptr) {
    RunnerHarness::Options options;
    options.mode = mode;
    options.slots = 2;
    options.max_context_tokens = 17 * 1024;
    options.max_step_tokens = 3072;
    options.max_logit_tokens = 512;
    harness = std::make_unique<RunnerHarness>(options);
  }
  return *harness;
}

// Everything that the inside of a forward pass shows, over all of its steps.
class Recorder : public RunnerTap {
 public:
  void OnHidden(int layer, const Tensor& hidden) override { Append(hidden_[layer + 1], hidden); }
  void OnGates(int layer, const Tensor& gates) override { Append(gates_[layer], gates); }
  void OnExperts(int layer, absl::Span<const int32_t> experts,
                 absl::Span<const float> weights) override {
    experts_[layer].insert(experts_[layer].end(), experts.begin(), experts.end());
    weights_[layer].insert(weights_[layer].end(), weights.begin(), weights.end());
  }
  void OnSelectedBlocks(int layer, absl::Span<const int32_t> blocks) override {
    selected_[layer].insert(selected_[layer].end(), blocks.begin(), blocks.end());
  }

  std::map<int, std::vector<float>> hidden_;  // [0: after the embedding, then by layer]
  std::map<int, std::vector<float>> gates_;
  std::map<int, std::vector<int32_t>> experts_;
  std::map<int, std::vector<float>> weights_;
  std::map<int, std::vector<int32_t>> selected_;

 private:
  static void Append(std::vector<float>& values, const Tensor& rows) {
    for (int64_t r = 0; r < rows.rows; ++r) {
      values.insert(values.end(), rows.f32(r), rows.f32(r) + rows.cols);
    }
  }
};

class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, F32LogitsAndGreedyTokens) {
  const GoldenFile golden(GetParam());
  RunnerHarness& harness = Harness(ComputeMode::kF32);
  const Logits want = golden.Rows("logits_last");
  const Logits got =
      harness.Feed(0, golden.Tokens("input_ids"), 500, static_cast<int>(want.size()));
  EXPECT_LT(Difference(got, want), kLogitTolerance);
  const std::vector<uint32_t> greedy = golden.Tokens("greedy_ids");
  EXPECT_EQ(harness.Greedy(0, got.back(), static_cast<int>(greedy.size())), greedy);
  harness.Finish(0);
}

// How far rounding to bf16 may move logits, as the root mean square of the differences over that of
// the logits. Rounding to nearest errs by at most 2^-9 of a value, uniformly: 2^-9 / sqrt(3) rms.
// The inputs of the products are rounded at 4 places in a row in each of 8 layers and once before
// the logits, and independent errors add up by their squares.
double Bf16Tolerance() { return std::ldexp(1.0, -9) / std::sqrt(3.0) * std::sqrt(4 * 8 + 1); }

double RelativeRms(const Logits& got, const Logits& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0;
  double scale = 0;
  for (size_t r = 0; r < std::min(got.size(), want.size()); ++r) {
    for (size_t c = 0; c < want[r].size(); ++c) {
      error += std::pow(got[r][c] - want[r][c], 2);
      scale += std::pow(want[r][c], 2);
    }
  }
  return std::sqrt(error / scale);
}

TEST_P(GoldenTest, Bf16LogitsAndGreedyTokens) {
  const GoldenFile golden(GetParam());
  const std::vector<uint32_t> prompt = golden.Tokens("input_ids");
  const std::vector<uint32_t> greedy = golden.Tokens("greedy_ids");
  std::vector<uint32_t> tokens = prompt;
  tokens.insert(tokens.end(), greedy.begin(), greedy.end() - 1);
  const auto count = static_cast<int>(greedy.size());
  const auto run = [&](ComputeMode mode, float threshold) {
    RunnerHarness& harness = Harness(mode);
    harness.SetGate({threshold, 0});
    const Logits logits = harness.Feed(0, tokens, 3072, count);
    harness.SetGate({kThreshold, 0});
    harness.Finish(0);
    return logits;
  };
  // With every head open the model is continuous but for its choices of experts and blocks.
  EXPECT_LT(RelativeRms(run(ComputeMode::kBf16, 0), run(ComputeMode::kF32, 0)), Bf16Tolerance());
  // A gate that rounding carries over the threshold takes its whole head along: a few in a thousand
  // are that close, and what they move is no rounding error. Twice the tolerance holds them all.
  const Logits rounded = run(ComputeMode::kBf16, kThreshold);
  const Logits full = run(ComputeMode::kF32, kThreshold);
  EXPECT_LT(RelativeRms(rounded, full), 2 * Bf16Tolerance());

  // Along the golden text, the best token is the golden one wherever it leads by four deviations
  // of the difference between two logits.
  double squares = 0;
  for (const std::vector<float>& row : full) {
    for (const float value : row) squares += value * value / static_cast<double>(row.size());
  }
  const double decided_by = 4 * std::sqrt(2.0) * Bf16Tolerance() * std::sqrt(squares / count);
  int decided = 0;
  for (int i = 0; i < count; ++i) {
    if (Margin(full[i]) < decided_by) continue;
    ++decided;
    EXPECT_EQ(RunnerHarness::Best(rounded[i]), greedy[i]) << "token " << i;
  }
  EXPECT_GT(decided, count / 2);
}

INSTANTIATE_TEST_SUITE_P(Abacus, GoldenTest,
                         ::testing::Values("addsub", "mul", "expr", "linear", "recursion",
                                           "pythagoras", "word", "lists", "needle_700",
                                           "needle_3000"),
                         [](const auto& info) { return std::string(info.param); });

class HeadsTest : public ::testing::TestWithParam<const char*> {};

// Early exits and the MTP module, whose state is one more stream of the window group.
TEST_P(HeadsTest, EarlyExitAndMtpLogits) {
  const GoldenFile golden(GetParam());
  const std::vector<uint32_t> tokens = golden.Tokens("input_ids");
  const Logits want_mtp = golden.Rows("mtp_logits_last");
  RunnerHarness::Options options;
  options.slots = 1;
  options.early_exits = options.mtp = true;
  options.max_step_tokens = 1024;
  RunnerHarness harness(options);

  RunnerHarness::Row row;
  row.tokens = tokens;
  row.logits = static_cast<int>(want_mtp.size()) + 1;
  const Logits got = RunnerHarness::Copy(harness.Step({row}).logits);
  const Logits want = golden.Rows("logits_last");
  const auto last = static_cast<ptrdiff_t>(want.size());
  const auto tail = [&](const Logits& rows) { return Logits(rows.end() - last, rows.end()); };
  EXPECT_LT(Difference(tail(got), want), kLogitTolerance);
  const std::vector<int>& exits = harness.model().description.early_exit_layers;
  for (size_t e = 0; e < exits.size(); ++e) {
    const Tensor logits = harness.runner().ExitLogits(static_cast<int>(e), harness.last_input());
    const std::string name = "early_exit_" + std::to_string(exits[e]) + "_logits_last";
    EXPECT_LT(Difference(tail(RunnerHarness::Copy(logits)), golden.Rows(name)), kLogitTolerance)
        << name;
  }

  std::vector<uint32_t> next(tokens.begin() + 1, tokens.end());
  next.push_back(golden.Tokens("greedy_ids").front());
  Logits mtp = RunnerHarness::Copy(harness.runner().ForwardMtp(harness.last_input(), next));
  mtp.pop_back();  // the golden ends where the next token is still the prompt's
  EXPECT_LT(Difference(mtp, want_mtp), kLogitTolerance);
}

INSTANTIATE_TEST_SUITE_P(Abacus, HeadsTest, ::testing::Values("recursion", "word", "needle_700"),
                         [](const auto& info) { return std::string(info.param); });

class DetailTest : public ::testing::Test {
 protected:
  static constexpr const char* kName = "needle_700.detail";

  static void SetUpTestSuite() {
    golden_ = new GoldenFile(kName);
    recorder_ = new Recorder;
    RunnerHarness& harness = Harness(ComputeMode::kF32);
    harness.runner().SetTap(recorder_);
    harness.Feed(0, golden_->Tokens("input_ids"), 256);
    harness.runner().SetTap(nullptr);
    tokens_ = golden_->Find("input_ids").elements();
  }
  static void TearDownTestSuite() {
    Harness(ComputeMode::kF32).Finish(0);
    delete recorder_;
    delete golden_;
  }

  // Part `index` of a golden tensor's first dimension.
  template <class T>
  static std::vector<T> Part(const std::vector<T>& values, size_t index, size_t parts) {
    const size_t size = values.size() / parts;
    return {values.begin() + index * size, values.begin() + (index + 1) * size};
  }

  static GoldenFile* golden_;
  static Recorder* recorder_;
  static int64_t tokens_;
};

GoldenFile* DetailTest::golden_ = nullptr;
Recorder* DetailTest::recorder_ = nullptr;
int64_t DetailTest::tokens_ = 0;

TEST_F(DetailTest, HiddenStates) {
  const std::vector<float> want = golden_->Floats("hidden");
  const int64_t positions = golden_->Find("hidden").shape[1];
  for (int layer = 0; layer < 9; ++layer) {
    const std::vector<float>& all = recorder_->hidden_[layer];
    const std::vector<float> got(all.end() - positions * 256, all.end());
    const std::vector<float> part = Part(want, layer, 9);
    EXPECT_LE(Difference(got, part), kHiddenTolerance * Largest(part)) << "after layer " << layer;
  }
}

TEST_F(DetailTest, Gates) {
  const std::vector<float> want = golden_->Floats("gates");
  for (int layer = 0; layer < 8; ++layer) {
    EXPECT_LT(Difference(recorder_->gates_[layer], Part(want, layer, 8)), kGateTolerance)
        << "layer " << layer;
  }
}

TEST_F(DetailTest, Experts) {
  const std::vector<int32_t> experts = golden_->Ints("experts");
  const std::vector<float> weights = golden_->Floats("expert_weights");
  for (int layer = 1; layer < 8; ++layer) {
    EXPECT_EQ(recorder_->experts_[layer], Part(experts, layer - 1, 7)) << "layer " << layer;
    EXPECT_LT(Difference(recorder_->weights_[layer], Part(weights, layer - 1, 7)), kGateTolerance)
        << "layer " << layer;
  }
}

// Every token's and group's blocks, but where all heads of a group are closed: there the choice is
// not made, since nothing reads it.
TEST_F(DetailTest, SelectedBlocks) {
  constexpr int kGroups = 2;
  constexpr int kBlocks = 8;
  constexpr int kGroupHeads = 4;
  const std::vector<int32_t> want = golden_->Ints("selected_blocks");
  const std::vector<float> gates = golden_->Floats("gates");
  int64_t skipped = 0;
  for (int layer = 4; layer < 8; ++layer) {
    const std::vector<int32_t>& got = recorder_->selected_[layer];
    ASSERT_EQ(static_cast<int64_t>(got.size()), tokens_ * kGroups * kBlocks);
    for (int64_t token = 0; token < tokens_; ++token) {
      for (int group = 0; group < kGroups; ++group) {
        const float* gate = &gates[(layer * tokens_ + token) * 8 + group * kGroupHeads];
        const bool closed = *std::max_element(gate, gate + kGroupHeads) < kThreshold;
        const int32_t* blocks = &got[(token * kGroups + group) * kBlocks];
        const int32_t* golden =
            &want[(((layer - 4) * kGroups + group) * tokens_ + token) * kBlocks];
        skipped += closed;
        for (int b = 0; b < kBlocks; ++b) {
          ASSERT_EQ(blocks[b], closed ? -1 : golden[b])
              << "layer " << layer << " token " << token << " group " << group << " block " << b;
        }
      }
    }
  }
  EXPECT_GT(skipped, 0);
}

TEST_F(DetailTest, CompressedKeysAndValues) {
  const KvPages& pages = Harness(ComputeMode::kF32).pages();
  for (int layer = 4; layer < 8; ++layer) {
    const KvLocation location = pages.Locate(layer, KvBranch::kNsaCompressed);
    for (const bool keys : {true, false}) {
      const KvStream& stream = keys ? location.k : location.v;
      const std::string name =
          (keys ? "compressed_keys." : "compressed_values.") + std::to_string(layer);
      std::vector<float> got;
      for (int head = 0; head < stream.kv_heads; ++head) {
        for (int64_t entry = 0; entry < golden_->Find(name).shape[1]; ++entry) {
          const int64_t row = CompressedRow(
              *Harness(ComputeMode::kF32).model().layers[layer].description.attention.nsa, entry);
          const uint32_t page = location.tables.pages[row / stream.entries_per_page];
          const auto* values = reinterpret_cast<const float*>(stream.Head(page, head)) +
                               row % stream.entries_per_page * stream.head_dim;
          got.insert(got.end(), values, values + stream.head_dim);
        }
      }
      const std::vector<float> want = golden_->Floats(name);
      EXPECT_LT(Difference(got, want), kHiddenTolerance * Largest(want)) << name;
    }
  }
}

// The oracle's kernels run the model too.
TEST(ReferenceOpsTest, F32Logits) {
  const GoldenFile golden("recursion");
  RunnerHarness::Options options;
  options.reference_ops = true;
  RunnerHarness harness(options);
  const Logits want = golden.Rows("logits_last");
  const Logits got =
      harness.Feed(0, golden.Tokens("input_ids"), 512, static_cast<int>(want.size()));
  EXPECT_LT(Difference(got, want), kLogitTolerance);
}

}  // namespace
}  // namespace troupe
