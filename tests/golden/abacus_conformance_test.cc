// The runner against what the model's fp32 reference gives, through paged state and the kernels
// that serve. models/abacus/MODEL.md says what each golden tensor is.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/compare.h"
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

// Of the largest value: a block's softmax weights amplify what its 32 tokens differ by.
constexpr float kCompressedTolerance = 1e-3F;

constexpr const char* kPrompts[] = {"addsub",     "mul",         "expr",        "linear",
                                    "recursion",  "pythagoras",  "word",        "lists",
                                    "needle_700", "needle_3000", "needle_16000"};

constexpr int kLayers = 8;
constexpr int kFirstSparseLayer = 4;

// A greedy golden goes on after the end of the answer, where the model is sure of nothing.
std::vector<uint32_t> UntilEnd(std::vector<uint32_t> tokens) {
  constexpr uint32_t kEndToken = 2;
  const auto end = std::find(tokens.begin(), tokens.end(), kEndToken);
  if (end != tokens.end()) tokens.erase(end + 1, tokens.end());
  return tokens;
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

// How far rounding to bf16 may move a position's logits: root mean square of the differences over
// that of the logits. Rounding to nearest errs by at most 2^-9 of a value, uniformly: 2^-9 /
// sqrt(3) rms. The inputs of products are rounded at 4 places in a row in each of 8 layers and once
// before the logits, and independent errors add up by their squares: 0.0065.
double Bf16Tolerance() { return std::ldexp(1.0, -9) / std::sqrt(3.0) * std::sqrt(4 * kLayers + 1); }

// Rounding also carries a few gates in a thousand over the threshold, and a few experts and blocks
// over the next one: such a choice moves the logits of its position by far more than any tolerance
// for rounding. So the tolerance is held by the median position. With more blocks than a query
// selects, every other position has some choice on the edge, and what the median is depends on
// which; then it is the first quartile's, and four times as much.
TEST_P(GoldenTest, Bf16LogitsAndGreedyTokens) {
  const GoldenFile golden(GetParam());
  const std::vector<uint32_t> prompt = golden.Tokens("input_ids");
  const std::vector<uint32_t> greedy = golden.Tokens("greedy_ids");
  const auto count = static_cast<int>(greedy.size());
  RunnerHarness& harness = Harness(ComputeMode::kBf16);
  const Logits first = harness.Feed(0, prompt, 500);
  EXPECT_EQ(UntilEnd(harness.Greedy(0, first.back(), count)), UntilEnd(greedy));
  harness.Finish(0);

  std::vector<uint32_t> tokens = prompt;
  const std::vector<uint32_t> answer = UntilEnd(greedy);
  tokens.insert(tokens.end(), answer.begin(), answer.end());
  const auto logits_of = [&](ComputeMode mode) {
    const Logits logits = Harness(mode).Feed(0, tokens, 3072, static_cast<int>(answer.size()));
    Harness(mode).Finish(0);
    return logits;
  };
  const Logits rounded = logits_of(ComputeMode::kBf16);
  const Logits full = logits_of(ComputeMode::kF32);
  std::vector<double> errors;
  for (size_t i = 0; i < full.size(); ++i) errors.push_back(RelativeRms(rounded[i], full[i]));
  constexpr size_t kAllSelected = 8 * 64;
  const bool all_selected = tokens.size() <= kAllSelected;
  const size_t held = errors.size() / (all_selected ? 2 : 4);
  std::nth_element(errors.begin(), errors.begin() + held, errors.end());
  EXPECT_LT(errors[held], Bf16Tolerance() * (all_selected ? 1 : 4));
  EXPECT_GT(errors[held], 0);  // it is another computation
}

INSTANTIATE_TEST_SUITE_P(Abacus, GoldenTest, ::testing::ValuesIn(kPrompts),
                         [](const auto& info) { return std::string(info.param); });

class HeadsTest : public ::testing::TestWithParam<const char*> {};

void ExpectEarlyExits(RunnerHarness& harness, const GoldenFile& golden) {
  const std::vector<int>& exits = harness.model().description.early_exit_layers;
  for (size_t e = 0; e < exits.size(); ++e) {
    const std::string name = "early_exit_" + std::to_string(exits[e]) + "_logits_last";
    const Logits want = golden.Rows(name);
    const Logits got =
        RunnerHarness::Copy(harness.runner().ExitLogits(static_cast<int>(e), harness.last_input()));
    EXPECT_LT(Difference(Tail(got, want.size()), want), kLogitTolerance) << name;
  }
}

// Early exits and the MTP module, whose state is one more stream of the window group.
TEST_P(HeadsTest, EarlyExitAndMtpLogits) {
  const GoldenFile golden(GetParam());
  const std::vector<uint32_t> tokens = golden.Tokens("input_ids");
  const Logits want_mtp = golden.Rows("mtp_logits_last");
  RunnerHarness::Options options;
  options.slots = 1;
  options.early_exits = options.mtp = true;
  options.max_context_tokens = 17 * 1024;
  RunnerHarness harness(options);

  // The MTP layer keeps state for every position, so it runs after every step; the last one is long
  // enough for all that is compared.
  std::vector<uint32_t> next(tokens.begin() + 1, tokens.end());
  next.push_back(golden.Tokens("greedy_ids").front());
  const Logits want = golden.Rows("logits_last");
  const size_t last_step = std::min<size_t>(tokens.size(), 500);
  Logits got;
  Logits mtp;
  for (size_t begin = 0; begin < tokens.size();) {
    const size_t left = tokens.size() - begin;
    const size_t count = left <= last_step ? left : std::min<size_t>(500, left - last_step);
    RunnerHarness::Row row;
    row.tokens.assign(tokens.begin() + begin, tokens.begin() + begin + count);
    row.logits = left == count ? static_cast<int>(want_mtp.size()) + 1 : 0;
    got = RunnerHarness::Copy(harness.Step({row}).logits);
    if (left == count) ExpectEarlyExits(harness, golden);
    mtp = RunnerHarness::Copy(harness.runner().ForwardMtp(
        harness.last_input(), absl::MakeConstSpan(next).subspan(begin, count)));
    begin += count;
  }
  EXPECT_LT(Difference(Tail(got, want.size()), want), kLogitTolerance);
  mtp.pop_back();  // the golden ends where the next token is still the prompt's
  EXPECT_LT(Difference(mtp, want_mtp), kLogitTolerance);
}

INSTANTIATE_TEST_SUITE_P(Abacus, HeadsTest, ::testing::ValuesIn(kPrompts),
                         [](const auto& info) { return std::string(info.param); });

// One look inside the forward pass, shared by the tests of a golden file.
struct Detail {
  explicit Detail(const std::string& name) : golden(name) {
    RunnerHarness& harness = Harness(ComputeMode::kF32);
    harness.runner().SetTap(&recorder);
    harness.Feed(0, golden.Tokens("input_ids"), 512);
    harness.runner().SetTap(nullptr);
    for (int layer = kFirstSparseLayer; layer < kLayers; ++layer) {
      compressed_keys[layer] = CompressedEntriesOf(harness, layer, /*keys=*/true);
      compressed_values[layer] = CompressedEntriesOf(harness, layer, /*keys=*/false);
    }
    harness.Finish(0);
  }

  static const Detail& Of(const std::string& name) {
    static std::map<std::string, std::unique_ptr<Detail>> details;
    std::unique_ptr<Detail>& detail = details[name];
    if (detail == nullptr) detail = std::make_unique<Detail>(name);
    return *detail;
  }

  // The compressed entries of slot 0, [kv_heads, entries, head_dim], from its pages.
  static std::vector<float> CompressedEntriesOf(RunnerHarness& harness, int layer, bool keys) {
    const KvLocation location = harness.pages().Locate(layer, KvBranch::kNsaCompressed);
    const KvStream& stream = keys ? location.k : location.v;
    const NsaDescription& nsa = *harness.model().layers[layer].description.attention.nsa;
    const int64_t entries = CompressedEntries(nsa, harness.length(0));
    Ops& ops = harness.ops();
    const auto fetch = [&ops](const auto* device, int64_t count) {
      return static_cast<decltype(device)>(
          ops.Fetch(const_cast<void*>(static_cast<const void*>(device)), count * sizeof(*device)));
    };
    const uint32_t* table = fetch(location.tables.pages, location.tables.stride);
    ops.Synchronize();
    std::vector<const float*> rows;
    for (int head = 0; head < stream.kv_heads; ++head) {
      for (int64_t entry = 0; entry < entries; ++entry) {
        const int64_t row = CompressedRow(nsa, entry);
        const uint32_t page = table[row / stream.entries_per_page];
        const auto* first = reinterpret_cast<const float*>(stream.Head(page, head)) +
                            row % stream.entries_per_page * stream.head_dim;
        rows.push_back(fetch(first, stream.head_dim));
      }
    }
    ops.Synchronize();
    std::vector<float> values;
    for (const float* row : rows) values.insert(values.end(), row, row + stream.head_dim);
    return values;
  }

  GoldenFile golden;
  Recorder recorder;
  std::map<int, std::vector<float>> compressed_keys;
  std::map<int, std::vector<float>> compressed_values;
};

class DetailTest : public ::testing::TestWithParam<const char*> {
 protected:
  const Detail& detail_ = Detail::Of(GetParam());
  const GoldenFile& golden_ = detail_.golden;
  const Recorder& recorder_ = detail_.recorder;
};

TEST_P(DetailTest, Gates) {
  const std::vector<float> want = golden_.Floats("gates");
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::vector<float> part = Part(want, layer, kLayers);
    const std::vector<float> got = Tail(recorder_.gates_.at(layer), part.size());
    EXPECT_LT(Difference(got, part), kGateTolerance) << "layer " << layer;
    const auto open = [](const std::vector<float>& gates) {
      std::vector<bool> result;
      for (const float gate : gates) result.push_back(gate >= kThreshold);
      return result;
    };
    EXPECT_EQ(open(got), open(part)) << "layer " << layer;
  }
}

TEST_P(DetailTest, Experts) {
  const std::vector<int32_t> experts = golden_.Ints("experts");
  const std::vector<float> weights = golden_.Floats("expert_weights");
  for (int layer = 1; layer < kLayers; ++layer) {
    const std::vector<int32_t> chosen = Part(experts, layer - 1, kLayers - 1);
    const std::vector<float> weight = Part(weights, layer - 1, kLayers - 1);
    EXPECT_EQ(Tail(recorder_.experts_.at(layer), chosen.size()), chosen) << "layer " << layer;
    EXPECT_LT(Difference(Tail(recorder_.weights_.at(layer), weight.size()), weight), kGateTolerance)
        << "layer " << layer;
  }
}

// Every token's and group's blocks, but where all heads of a group are closed: there the choice is
// not made, since nothing reads it.
TEST_P(DetailTest, SelectedBlocks) {
  constexpr int kGroups = 2;
  constexpr int kBlocks = 8;
  constexpr int kGroupHeads = 4;
  const std::vector<int32_t> want = golden_.Ints("selected_blocks");  // [layers, G, T, blocks]
  const std::vector<float> gates = golden_.Floats("gates");           // [layers, T, H]
  const int64_t tokens = golden_.Find("selected_blocks").shape[2];
  int64_t skipped = 0;
  for (int layer = kFirstSparseLayer; layer < kLayers; ++layer) {
    const std::vector<int32_t> got =
        Tail(recorder_.selected_.at(layer), tokens * kGroups * kBlocks);
    for (int64_t token = 0; token < tokens; ++token) {
      for (int group = 0; group < kGroups; ++group) {
        const float* gate = &gates[((layer * tokens + token) * kGroups + group) * kGroupHeads];
        const bool closed = *std::max_element(gate, gate + kGroupHeads) < kThreshold;
        skipped += closed;
        const auto blocks = got.begin() + (token * kGroups + group) * kBlocks;
        const auto golden =
            want.begin() +
            (((layer - kFirstSparseLayer) * kGroups + group) * tokens + token) * kBlocks;
        const std::vector<int32_t> expected = closed
                                                  ? std::vector<int32_t>(kBlocks, -1)
                                                  : std::vector<int32_t>(golden, golden + kBlocks);
        ASSERT_EQ(std::vector<int32_t>(blocks, blocks + kBlocks), expected)
            << "layer " << layer << " token " << token << " group " << group;
      }
    }
  }
  EXPECT_GT(skipped, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Abacus, DetailTest, ::testing::Values("needle_700.detail", "needle_16000"),
    [](const auto& info) {
      return std::string(info.param).substr(0, std::string(info.param).find('.'));
    });

TEST(StateTest, HiddenStates) {
  const Detail& detail = Detail::Of("needle_700.detail");
  const std::vector<float> want = detail.golden.Floats("hidden");
  for (int layer = 0; layer <= kLayers; ++layer) {
    const std::vector<float> part = Part(want, layer, kLayers + 1);
    const std::vector<float> got = Tail(detail.recorder.hidden_.at(layer), part.size());
    EXPECT_LE(Difference(got, part), kHiddenTolerance * Largest(part)) << "after layer " << layer;
  }
}

TEST(StateTest, CompressedKeysAndValues) {
  const Detail& detail = Detail::Of("needle_700.detail");
  for (int layer = kFirstSparseLayer; layer < kLayers; ++layer) {
    const std::string suffix = "." + std::to_string(layer);
    const std::vector<float> keys = detail.golden.Floats("compressed_keys" + suffix);
    const std::vector<float> values = detail.golden.Floats("compressed_values" + suffix);
    EXPECT_LT(Difference(detail.compressed_keys.at(layer), keys),
              kCompressedTolerance * Largest(keys))
        << suffix;
    EXPECT_LT(Difference(detail.compressed_values.at(layer), values),
              kCompressedTolerance * Largest(values))
        << suffix;
  }
}

class IsaTest : public ::testing::TestWithParam<CpuIsa> {};

TEST_P(IsaTest, F32LogitsAndGreedyTokens) {
  if (GetParam() > *DetectCpuIsa()) GTEST_SKIP() << "this CPU does not have it";
  const GoldenFile golden("needle_700");
  RunnerHarness::Options options;
  options.isa = GetParam();
  RunnerHarness harness(options);
  const Logits want = golden.Rows("logits_last");
  const Logits got =
      harness.Feed(0, golden.Tokens("input_ids"), 512, static_cast<int>(want.size()));
  EXPECT_LT(Difference(got, want), kLogitTolerance);
  const std::vector<uint32_t> greedy = golden.Tokens("greedy_ids");
  EXPECT_EQ(harness.Greedy(0, got.back(), static_cast<int>(greedy.size())), greedy);
}

INSTANTIATE_TEST_SUITE_P(Isas, IsaTest,
                         ::testing::Values(CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16),
                         [](const auto& info) {
                           return std::string(
                               std::array{"Avx2", "Avx512", "Avx512Vnni", "Avx512Bf16"}.at(
                                   static_cast<size_t>(info.param)));
                         });

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
