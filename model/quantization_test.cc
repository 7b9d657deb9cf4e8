#include "model/quantization.h"

#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/coded_weights.h"

namespace troupe {
namespace {

using testing::HasSubstr;

absl::StatusOr<Quantization> Read(const nlohmann::json& quantization) {
  const nlohmann::json config = {{"quantization_config", quantization}};
  JsonFields fields("config.json", "", config);
  Quantization result = Quantization::Read(fields);
  if (absl::Status status = fields.Finish(); !status.ok()) return status;
  return result;
}

// tests/golden/formats; see tests/golden/make_formats.py.
class FormatsTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string folder =
        std::string(std::getenv("TROUPE_SOURCE_DIR")) + "/tests/golden/formats";
    auto files = SafetensorsCheckpoint::OpenFolder(folder);
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
    auto configs = ReadJsonFile(folder + "/configs.json");
    ASSERT_TRUE(configs.ok()) << configs.status();
    configs_ = *std::move(configs);
  }

  const TensorView& Want(const std::string& name) const {
    const TensorView* view = files_.Find(name + ".want");
    EXPECT_NE(view, nullptr) << name;
    return *view;
  }

  absl::StatusOr<MatrixView> Resolve(const std::string& name, const nlohmann::json& config) {
    auto quantization = Read(config);
    if (!quantization.ok()) return quantization.status();
    const TensorView& want = Want(name);
    return quantization->Resolve(files_, name + ".weight", want.shape[0], want.shape[1], &used_);
  }

  // All rows, and again from the codes.
  void ExpectDecodes(const MatrixView& matrix, const std::string& name, bool codes) {
    const std::vector<float> want = ReadAsF32(Want(name));
    std::vector<float> got(want.size());
    matrix.ReadRows(0, matrix.rows, absl::MakeSpan(got));
    EXPECT_EQ(got, want) << name;
    const auto coded = ReadCoded(matrix);
    ASSERT_EQ(coded.has_value(), codes) << name;
    if (!codes) return;
    for (int64_t r = 0; r < matrix.rows; ++r) {
      for (int64_t c = 0; c < matrix.cols; ++c) {
        ASSERT_EQ(DecodeElement(coded->view(), r, c), want[r * matrix.cols + c])
            << name << " " << r << ", " << c;
      }
    }
    ExpectPartsDecode(matrix, name, want);
  }

  // Rows and columns of it, by value and, where groups can be cut so, by codes.
  void ExpectPartsDecode(const MatrixView& matrix, const std::string& name,
                         const std::vector<float>& want) {
    std::mt19937 random(11);
    const auto below = [&](int64_t limit) {
      return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
    };
    int by_codes = 0;
    for (int i = 0; i < 40; ++i) {
      const int64_t row = below(matrix.rows);
      const int64_t col = i % 2 == 0 ? below(matrix.cols) / 8 * 8 : below(matrix.cols);
      const MatrixView part = matrix.RowsFrom(row, 1 + below(matrix.rows - row))
                                  .ColumnsFrom(col, 1 + below(matrix.cols - col));
      const std::vector<float> got = ReadAsF32(part);
      const auto coded = ReadCoded(part);
      EXPECT_EQ(coded.has_value(), CheckGroupsWhole(part).ok()) << name;
      by_codes += coded.has_value() ? 1 : 0;
      for (int64_t r = 0; r < part.rows; ++r) {
        for (int64_t c = 0; c < part.cols; ++c) {
          const float value = want[(row + r) * matrix.cols + col + c];
          ASSERT_EQ(got[r * part.cols + c], value) << name << " from " << row << ", " << col;
          if (coded.has_value()) {
            ASSERT_EQ(DecodeElement(coded->view(), r, c), value)
                << name << " from " << row << ", " << col;
          }
        }
      }
    }
    EXPECT_GT(by_codes, 0) << name;
  }

  SafetensorsCheckpoint files_;
  nlohmann::json configs_;
  std::vector<absl::string_view> used_;
};

TEST_F(FormatsTest, EveryFormatDecodesAsItsDescriptionSays) {
  int modules = 0;
  for (const auto& [name, config] : configs_.items()) {
    if (name == "experts") continue;
    auto matrix = Resolve(name, config);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    EXPECT_THAT(std::string(matrix->name()), HasSubstr(name));
    EXPECT_GT(matrix->stored_bytes(), matrix->elements() / 2);
    ExpectDecodes(*matrix, name, name != "gptq4_act");
    ++modules;
  }
  EXPECT_EQ(modules, 12);
}

TEST_F(FormatsTest, AllTensorsOfAModuleAreUsed) {
  ASSERT_TRUE(Resolve("packed4_zeros", configs_["packed4_zeros"]).ok());
  EXPECT_THAT(used_, testing::UnorderedElementsAre(
                         "packed4_zeros.weight_packed", "packed4_zeros.weight_shape",
                         "packed4_zeros.weight_scale", "packed4_zeros.weight_zero_point"));
}

TEST_F(FormatsTest, ExpertsOfMxfp4) {
  for (int e = 0; e < 3; ++e) {
    const std::string name = "experts." + std::to_string(e);
    auto matrix = ResolveMxfp4(files_, "experts", {.experts = 3, .expert = e}, 8, 64, &used_);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    ExpectDecodes(*matrix, name, true);
    // Every second row, as gate and up lie in gpt-oss.
    auto odd = ResolveMxfp4(files_, "experts", {3, e, 1, 2}, 4, 64, &used_);
    ASSERT_TRUE(odd.ok()) << odd.status();
    std::vector<float> got(64);
    odd->ReadRows(2, 1, absl::MakeSpan(got));
    const std::vector<float> all = ReadAsF32(Want(name));
    EXPECT_EQ(got, std::vector<float>(all.begin() + 5 * 64, all.begin() + 6 * 64));
    ASSERT_TRUE(ReadCoded(*odd).has_value());
    EXPECT_EQ(DecodeElement(ReadCoded(*odd)->view(), 2, 7), all[5 * 64 + 7]);
  }
}

struct BadModule {
  std::string module;  // resolved with the config of
  std::string config;
  int64_t rows, cols;  // 0: as they are
  std::string message;
};

TEST_F(FormatsTest, MismatchesNameTensorFoundAndWanted) {
  const std::vector<BadModule> cases = {
      {"fp8", "fp8", 41, 0, "fp8.weight: shape: found [40, 70], wanted [41, 70]"},
      {"fp8", "gptq4", 0, 0, "fp8.qweight: found 70 elements in words of 8, wanted a multiple"},
      {"gptq4", "gptq4", 0, 128, "gptq4.qweight: shape: found [8, 24], wanted [16, 24]"},
      {"gptq4", "gptq4", 25, 0, "gptq4.qzeros: found 25 elements in words of 8"},
      {"gptq4", "awq", 0, 0, "gptq4.qweight: shape: found [8, 24], wanted [64, 3]"},
      {"gptq4", "gptq8", 0, 0, "gptq4.qweight: shape: found [8, 24], wanted [16, 24]"},
      {"packed4", "packed4_zeros", 0, 0, "packed4.weight_zero_point: found nothing"},
      {"packed4_zeros", "packed4", 0, 0, "weight_zero_point: found a tensor, wanted none"},
      {"packed4", "packed8", 0, 0, "packed4.weight_packed: shape: found [20, 9], wanted [20, 18]"},
      {"packed4", "packed4", 0, 71, "packed4.weight_shape: found 20 x 72, wanted 20 x 71"},
      {"int8", "fp8_channel", 0, 0, "int8.weight: dtype: found I8, wanted F8_E4M3"},
      {"awq", "packed4", 0, 0, "awq.weight_packed: found nothing"}};
  for (const BadModule& bad : cases) {
    auto quantization = Read(configs_[bad.config]);
    ASSERT_TRUE(quantization.ok()) << quantization.status();
    const TensorView& want = Want(bad.module);
    const auto matrix = quantization->Resolve(files_, bad.module + ".weight",
                                              bad.rows == 0 ? want.shape[0] : bad.rows,
                                              bad.cols == 0 ? want.shape[1] : bad.cols, &used_);
    EXPECT_EQ(matrix.status().code(), absl::StatusCode::kInvalidArgument) << bad.module;
    EXPECT_THAT(std::string(matrix.status().message()), HasSubstr(bad.message));
  }
}

TEST(QuantizationConfigTest, WhatIsNotUnderstoodIsAnError) {
  const auto group = [](const nlohmann::json& weights) {
    return nlohmann::json{{"quant_method", "compressed-tensors"},
                          {"format", "pack-quantized"},
                          {"config_groups", {{"g", {{"weights", weights}}}}}};
  };
  const nlohmann::json gptq = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}};
  const auto with = [](nlohmann::json base, const std::string& key, const nlohmann::json& value) {
    base[key] = value;
    return base;
  };
  const std::vector<std::pair<nlohmann::json, std::string>> cases = {
      {{{"quant_method", "bitsandbytes"}}, "quantization_config.quant_method: found bitsandbytes"},
      {with(gptq, "bits", 3), "quantization_config.bits: found 3, wanted 4 or 8"},
      {with(gptq, "group_size", 0), "quantization_config.group_size: found 0"},
      {with(gptq, "checkpoint_format", "marlin"), "checkpoint_format: found marlin"},
      {with(gptq, "dynamic", {{"-:.*", {}}}), "quantization_config.dynamic"},
      {with(gptq, "rotation", "hadamard"), "quantization_config.rotation"},
      {{{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", "gemv"}},
       "version: found gemv"},
      {{{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"zero_point", false}},
       "zero_point: found false"},
      {{{"quant_method", "fp8"}, {"activation_scheme", "static"}},
       "activation_scheme: found static"},
      {{{"quant_method", "fp8"}, {"weight_block_size", {128}}}, "weight_block_size: found 1 sizes"},
      {{{"quant_method", "compressed-tensors"}}, "config_groups: found nothing"},
      {group({{"num_bits", 4}, {"strategy", "tensor_group"}}), "strategy: found tensor_group"},
      {group({{"num_bits", 4}, {"type", "float"}}), "format: found pack-quantized"},
      {group({{"num_bits", 4}, {"actorder", "other"}}), "weights.actorder: found other"}};
  for (const auto& [config, message] : cases) {
    const auto result = Read(config);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("config.json: "));
  }
}

// As compressed-tensors and AutoAWQ write what is not used.
TEST(QuantizationConfigTest, NullCountsAsAbsent) {
  const nlohmann::json weights = {{"num_bits", 4},       {"strategy", "group"},
                                  {"group_size", 32},    {"actorder", nullptr},
                                  {"observer", nullptr}, {"block_structure", nullptr}};
  EXPECT_TRUE(Read({{"quant_method", "compressed-tensors"},
                    {"format", "pack-quantized"},
                    {"ignore", nullptr},
                    {"kv_cache_scheme", nullptr},
                    {"sparsity_config", nlohmann::json::object()},
                    {"config_groups",
                     {{"a",
                       {{"targets", {"Linear"}},
                        {"format", nullptr},
                        {"input_activations", nullptr},
                        {"weights", weights}}}}}})
                  .ok());
  EXPECT_TRUE(Read({{"quant_method", "awq"},
                    {"bits", 4},
                    {"group_size", 128},
                    {"zero_point", true},
                    {"version", "GEMM"},
                    {"modules_to_not_convert", nullptr}})
                  .ok());
}

// A compressed-tensors config of int-quantized weights, or float-quantized ones, by row.
nlohmann::json WithActivations(const nlohmann::json& activations, const std::string& type = "int",
                               const std::string& key = "input_activations") {
  return {{"quant_method", "compressed-tensors"},
          {"format", type + "-quantized"},
          {"config_groups",
           {{"g",
             {{"targets", {"Linear"}},
              {key, activations},
              {"weights", {{"num_bits", 8}, {"type", type}, {"strategy", "channel"}}}}}}}};
}

TEST(QuantizationConfigTest, ActivationsBecomeIntegersAsAsked) {
  const nlohmann::json by_token = {{"num_bits", 8},       {"type", "int"},
                                   {"symmetric", true},   {"strategy", "token"},
                                   {"dynamic", true},     {"group_size", nullptr},
                                   {"observer", nullptr}, {"block_structure", nullptr}};
  auto quantization = Read(WithActivations(by_token));
  ASSERT_TRUE(quantization.ok()) << quantization.status();
  EXPECT_EQ(quantization->SchemeOf("q_proj")->products, Precision::kInt8Rows);
  EXPECT_THAT(quantization->name(), HasSubstr("activations int8 by token"));

  nlohmann::json grouped = WithActivations({{"group_size", 64}, {"dynamic", true}});
  grouped["config_groups"]["g"]["weights"]["strategy"] = "group";
  grouped["config_groups"]["g"]["weights"]["group_size"] = 64;
  quantization = Read(grouped);
  ASSERT_TRUE(quantization.ok()) << quantization.status();
  EXPECT_EQ(quantization->SchemeOf("q_proj")->products, Precision::kInt8Groups);

  quantization = Read(WithActivations(nullptr));
  ASSERT_TRUE(quantization.ok()) << quantization.status();
  EXPECT_EQ(quantization->SchemeOf("q_proj")->products, std::nullopt);
  quantization = Read(WithActivations(
      {{"num_bits", 8}, {"type", "float"}, {"strategy", "token"}, {"dynamic", true}}, "float"));
  ASSERT_TRUE(quantization.ok()) << quantization.status();
  EXPECT_EQ(quantization->SchemeOf("q_proj")->products, std::nullopt);
  EXPECT_THAT(quantization->name(), HasSubstr("activations not rounded to float8"));
}

TEST(QuantizationConfigTest, OtherActivationsAreErrors) {
  const auto with = [](const std::string& key, const nlohmann::json& value) {
    nlohmann::json activations = {{"num_bits", 8}, {"strategy", "token"}, {"dynamic", true}};
    activations[key] = value;
    return activations;
  };
  const std::vector<std::pair<nlohmann::json, std::string>> cases = {
      {WithActivations(with("dynamic", false)), "input_activations: found scales that are fixed"},
      {WithActivations(with("num_bits", 4)), "input_activations.num_bits: found 4, wanted 8"},
      {WithActivations(with("symmetric", false)), "input_activations.symmetric: found false"},
      {WithActivations(with("strategy", "tensor")), "input_activations.strategy: found tensor"},
      {WithActivations(with("strategy", nullptr)), "input_activations.strategy: found tensor"},
      {WithActivations({{"group_size", 32}, {"dynamic", true}}),
       "input_activations.group_size: found 32, wanted the weights' group_size"},
      {WithActivations(with("shift", 1)), "input_activations.shift"},
      {WithActivations(with("type", "int"), "float"), "input_activations.type: found int"},
      {WithActivations(with("dynamic", true), "int", "output_activations"),
       "output_activations: found an object"}};
  for (const auto& [config, message] : cases) {
    const auto result = Read(config);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
  }
}

TEST(QuantizationConfigTest, SchemesFollowTargetsAndIgnore) {
  const auto weights = [](int bits) {
    return nlohmann::json{{"num_bits", bits}, {"strategy", "group"}, {"group_size", 32}};
  };
  const auto quantization =
      Read({{"quant_method", "compressed-tensors"},
            {"format", "pack-quantized"},
            {"ignore", {"lm_head", "re:.*mlp.gate$"}},
            {"config_groups",
             {{"a", {{"targets", {"Linear"}}, {"weights", weights(4)}}},
              {"b", {{"targets", {"re:.*down_proj"}}, {"weights", weights(8)}}}}}});
  ASSERT_TRUE(quantization.ok()) << quantization.status();
  EXPECT_EQ(quantization->SchemeOf("lm_head"), nullptr);
  EXPECT_EQ(quantization->SchemeOf("model.layers.3.mlp.gate"), nullptr);
  ASSERT_NE(quantization->SchemeOf("model.layers.3.mlp.gate_proj"), nullptr);
  EXPECT_EQ(quantization->SchemeOf("model.layers.3.mlp.gate_proj")->bits, 4);
  EXPECT_EQ(quantization->SchemeOf("model.layers.3.mlp.down_proj")->bits, 8);
  EXPECT_EQ(Quantization().SchemeOf("lm_head"), nullptr);
}

TEST(QuantizationConfigTest, NamesMatchAsConfigsMeanThem) {
  EXPECT_TRUE(NameMatches("lm_head", "lm_head"));
  EXPECT_FALSE(NameMatches("lm_head", "model.lm_head2"));
  EXPECT_TRUE(NameMatches("model.layers.0.self_attn", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(NameMatches("model.layers.1", "model.layers.10.mlp.up_proj"));
  EXPECT_TRUE(NameMatches("gate", "model.layers.1.mlp.gate"));
  EXPECT_FALSE(NameMatches("gate", "model.layers.1.mlp.gate_proj"));
  EXPECT_TRUE(NameMatches("model.layers.*.self_attn", "model.layers.7.self_attn.k_proj"));
  EXPECT_FALSE(NameMatches("model.layers.*.self_attn", "model.layers.7.mlp.up_proj"));
  EXPECT_TRUE(NameMatches("re:.*mlp.gate$", "model.layers.2.mlp.gate"));
  EXPECT_FALSE(NameMatches("re:.*mlp.gate$", "model.layers.2.mlp.gate_proj"));
  EXPECT_FALSE(NameMatches("re:mlp", "model.mlp"));  // from the beginning
  EXPECT_FALSE(NameMatches("re:(", "model"));        // no expression at all
}

}  // namespace
}  // namespace troupe
