// Tiny random models of every family against what transformers answered, and the comparison itself.
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/model_check.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class GoldenModels : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModels, LogitsAndGreedyTokens) {
  const std::string folder = SourcePath(std::string("tests/golden/models/") + GetParam());
  for (const absl::string_view config : kModelConfigs) {
    const auto comparisons = CompareModel(folder, config, {});
    ASSERT_TRUE(comparisons.ok()) << config << ": " << comparisons.status();
    for (const ModelComparison& comparison : *comparisons) {
      EXPECT_LE(comparison.error, kModelLogitTolerance)
          << config << " " << PromptFeedName(comparison.feed);
      EXPECT_EQ(comparison.greedy_equal, comparison.greedy_tokens)
          << config << " " << PromptFeedName(comparison.feed) << ", margin "
          << comparison.margin_at_miss;
      EXPECT_GT(comparison.greedy_tokens, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModels,
                         ::testing::Values("deepseek_v2", "deepseek_v3", "deepseek_v3_fp8",
                                           "gemma3_text", "glm4_moe", "gpt_oss", "gpt_oss_mxfp4",
                                           "llama", "llama_awq", "llama_gptq", "minimax_m2",
                                           "mixtral", "olmo3", "qwen2", "qwen3", "qwen3_fp8",
                                           "qwen3_moe", "qwen3_moe_ct", "smollm3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ModelCheck, NamesWhatADeviceLacks) {
  EXPECT_TRUE(MakeDeviceOps("cpu").ok());
  EXPECT_EQ(MakeDeviceOps("tpu").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MakeDeviceOps("tpu").status().message(), HasSubstr("found \"tpu\", wanted cpu"));
}

// A wrong golden must be a miss: one logit moved by twice the tolerance, one token changed.
TEST(ModelCheck, SeesWhatDiffers) {
  namespace fs = std::filesystem;
  const fs::path source = SourcePath("tests/golden/models/llama");
  const fs::path copy = fs::path(::testing::TempDir()) / "golden_models_test";
  fs::remove_all(copy);
  fs::copy(source, copy);
  fs::permissions(copy / "golden.safetensors", fs::perms::owner_write, fs::perm_options::add);
  std::fstream file(copy / "golden.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  // The data ends with `margin` or follows another order: find the tensors by the header's words.
  uint64_t header_bytes = 0;
  file.read(reinterpret_cast<char*>(&header_bytes), sizeof(header_bytes));
  std::string header(header_bytes, '\0');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const auto begin_of = [&](const std::string& name) {
    const size_t at = header.find("data_offsets", header.find("\"" + name + "\""));
    return static_cast<std::streamoff>(8 + header_bytes) +
           std::stoll(header.substr(header.find('[', at) + 1));
  };
  float logit = 0;
  file.seekg(begin_of("logits"));
  file.read(reinterpret_cast<char*>(&logit), sizeof(logit));
  logit += 2 * kModelLogitTolerance;
  file.seekp(begin_of("logits"));
  file.write(reinterpret_cast<const char*>(&logit), sizeof(logit));
  int64_t token = 0;
  file.seekg(begin_of("greedy") + 8 * 23);  // the first prompt's last token
  file.read(reinterpret_cast<char*>(&token), sizeof(token));
  token = (token + 1) % 320;
  file.seekp(begin_of("greedy") + 8 * 23);
  file.write(reinterpret_cast<const char*>(&token), sizeof(token));
  file.close();

  const auto comparisons = CompareModel(copy.string(), "config.json", {});
  ASSERT_TRUE(comparisons.ok()) << comparisons.status();
  for (const ModelComparison& comparison : *comparisons) {
    EXPECT_NEAR(comparison.error, 2 * kModelLogitTolerance, 1e-4F);
    EXPECT_EQ(comparison.greedy_equal, comparison.greedy_tokens - 1);
    EXPECT_FALSE(comparison.ok());
  }
  fs::remove_all(copy);
}

}  // namespace
}  // namespace troupe
