// Which tensors of a checkpoint become which weights, and what is told about those that cannot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/testing/golden_config.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct FakeTensor {
  std::string dtype = "BF16";
  std::vector<int64_t> shape;
};
using Tensors = std::map<std::string, FakeTensor>;

void Add(Tensors& tensors, const std::string& name, std::vector<int64_t> shape) {
  tensors[name] = {.shape = std::move(shape)};
}

void AddEnds(Tensors& tensors, bool tied) {
  Add(tensors, "model.embed_tokens.weight", {320, 64});
  Add(tensors, "model.norm.weight", {64});
  if (!tied) Add(tensors, "lm_head.weight", {320, 64});
}

void AddFfn(Tensors& tensors, const std::string& prefix, int64_t inner) {
  Add(tensors, prefix + "gate_proj.weight", {inner, 64});
  Add(tensors, prefix + "up_proj.weight", {inner, 64});
  Add(tensors, prefix + "down_proj.weight", {64, inner});
}

Tensors QwenTensors() {
  Tensors tensors;
  AddEnds(tensors, /*tied=*/true);
  for (int i = 0; i < 4; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    Add(tensors, layer + "input_layernorm.weight", {64});
    Add(tensors, layer + "post_attention_layernorm.weight", {64});
    for (const auto& [name, rows] : {std::pair("q", 64), std::pair("k", 16), std::pair("v", 16)}) {
      Add(tensors, absl::StrCat(layer, "self_attn.", name, "_proj.weight"), {rows, 64});
      Add(tensors, absl::StrCat(layer, "self_attn.", name, "_proj.bias"), {rows});
    }
    Add(tensors, layer + "self_attn.o_proj.weight", {64, 64});
    AddFfn(tensors, layer + "mlp.", 96);
  }
  return tensors;
}

Tensors GptOssTensors() {
  Tensors tensors;
  AddEnds(tensors, /*tied=*/false);
  for (int i = 0; i < 4; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    Add(tensors, layer + "input_layernorm.weight", {64});
    Add(tensors, layer + "post_attention_layernorm.weight", {64});
    for (const auto& [name, rows] :
         {std::pair("q", 256), std::pair("k", 64), std::pair("v", 64), std::pair("o", 64)}) {
      const int64_t cols = name[0] == 'o' ? 256 : 64;
      Add(tensors, absl::StrCat(layer, "self_attn.", name, "_proj.weight"), {rows, cols});
      Add(tensors, absl::StrCat(layer, "self_attn.", name, "_proj.bias"), {rows});
    }
    Add(tensors, layer + "self_attn.sinks", {8});
    Add(tensors, layer + "mlp.router.weight", {8, 64});
    Add(tensors, layer + "mlp.router.bias", {8});
    Add(tensors, layer + "mlp.experts.gate_up_proj", {8, 64, 128});
    Add(tensors, layer + "mlp.experts.gate_up_proj_bias", {8, 128});
    Add(tensors, layer + "mlp.experts.down_proj", {8, 64, 64});
    Add(tensors, layer + "mlp.experts.down_proj_bias", {8, 64});
  }
  return tensors;
}

// With the MTP module as layer 3.
Tensors DeepSeekTensors() {
  Tensors tensors;
  AddEnds(tensors, /*tied=*/false);
  for (int i = 0; i < 4; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    const std::string attention = layer + "self_attn.";
    Add(tensors, layer + "input_layernorm.weight", {64});
    Add(tensors, layer + "post_attention_layernorm.weight", {64});
    Add(tensors, attention + "q_a_proj.weight", {64, 64});
    Add(tensors, attention + "q_a_layernorm.weight", {64});
    Add(tensors, attention + "q_b_proj.weight", {256, 64});
    Add(tensors, attention + "kv_a_proj_with_mqa.weight", {48, 64});
    Add(tensors, attention + "kv_a_layernorm.weight", {32});
    Add(tensors, attention + "kv_b_proj.weight", {256, 32});
    Add(tensors, attention + "o_proj.weight", {64, 128});
    if (i == 0) {
      AddFfn(tensors, layer + "mlp.", 96);
      continue;
    }
    Add(tensors, layer + "mlp.gate.weight", {8, 64});
    Add(tensors, layer + "mlp.gate.e_score_correction_bias", {8});
    AddFfn(tensors, layer + "mlp.shared_experts.", 32);
    for (int e = 0; e < 8; ++e) AddFfn(tensors, absl::StrCat(layer, "mlp.experts.", e, "."), 32);
  }
  for (const char* name : {"enorm.weight", "hnorm.weight", "shared_head.norm.weight"}) {
    Add(tensors, absl::StrCat("model.layers.3.", name), {64});
  }
  Add(tensors, "model.layers.3.eh_proj.weight", {64, 128});
  Add(tensors, "model.layers.3.embed_tokens.weight", {320, 64});
  Add(tensors, "model.layers.3.shared_head.head.weight", {320, 64});
  return tensors;
}

class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "malformed_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Opens a checkpoint of these tensors; f32 element i of one is the number i, all else is zero.
  absl::StatusOr<Checkpoint> Open(const json& config, const Tensors& tensors) {
    json header = json::object();
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      int64_t elements = 1;
      for (int64_t dim : tensor.shape) elements *= dim;
      const size_t begin = data.size();
      data.resize(begin + elements * BitsPerElement(*DTypeFromName(tensor.dtype)) / 8);
      if (tensor.dtype == "F32") {
        auto* values = reinterpret_cast<float*>(data.data() + begin);
        for (int64_t i = 0; i < elements; ++i) values[i] = static_cast<float>(i);
      }
      header[name] = {
          {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
    }
    const std::string text = header.dump();
    const uint64_t size = text.size();
    const std::string prefix(reinterpret_cast<const char*>(&size), sizeof(size));
    std::ofstream(folder_ + "/config.json", std::ios::binary) << config.dump();
    std::ofstream(folder_ + "/model.safetensors", std::ios::binary) << prefix << text << data;
    return Checkpoint::Open(folder_);
  }

  std::string folder_;
};

json DeepSeekConfig() {
  json config = GoldenConfig("deepseek_v3");
  config["num_nextn_predict_layers"] = 1;
  return config;
}

TEST_F(FolderTest, ATiedHeadMayBeSavedAgain) {
  Tensors tensors = QwenTensors();
  ASSERT_TRUE(Open(GoldenConfig("qwen2"), tensors).ok());
  Add(tensors, "lm_head.weight", {320, 64});
  const auto checkpoint = Open(GoldenConfig("qwen2"), tensors);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto& kv = std::get<KvWeights>(checkpoint->weights().layers[1].attention.kv);
  EXPECT_EQ(kv.v_proj.bias.name(), "model.layers.1.self_attn.v_proj.bias");
  EXPECT_TRUE(checkpoint->weights().layers[1].attention.o_proj.bias.empty());
}

TEST_F(FolderTest, ExpertsAreTakenOutOfFusedTensors) {
  Tensors tensors = GptOssTensors();
  for (const char* name : {"gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"}) {
    tensors[absl::StrCat("model.layers.2.mlp.experts.", name)].dtype = "F32";
  }
  const auto checkpoint = Open(GoldenConfig("gpt_oss"), tensors);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto& moe = std::get<MoeWeights>(checkpoint->weights().layers[2].ffn);
  const SwigluWeights& expert = moe.experts[5];
  const auto gate = ReadAsF32(expert.gate_proj.weight);
  const auto up = ReadAsF32(expert.up_proj.weight);
  const auto down = ReadAsF32(expert.down_proj.weight);
  for (int r = 0; r < 64; ++r) {
    for (int c = 0; c < 64; ++c) {
      ASSERT_EQ(gate[r * 64 + c], (5 * 64 + c) * 128 + 2 * r);
      ASSERT_EQ(up[r * 64 + c], (5 * 64 + c) * 128 + 2 * r + 1);
      ASSERT_EQ(down[r * 64 + c], (5 * 64 + c) * 64 + r);
    }
    EXPECT_EQ(ReadAsF32(expert.gate_proj.bias)[r], 5 * 128 + 2 * r);
    EXPECT_EQ(ReadAsF32(expert.up_proj.bias)[r], 5 * 128 + 2 * r + 1);
    EXPECT_EQ(ReadAsF32(expert.down_proj.bias)[r], 5 * 64 + r);
  }
  // Two of eight experts are used for a token.
  const int64_t expert_size = 3 * 64 * 64 + 3 * 64;
  EXPECT_EQ(checkpoint->parameters().total - checkpoint->parameters().active, 4 * 6 * expert_size);
}

TEST_F(FolderTest, AnMtpModuleIsBoundWhereItIsThere) {
  Tensors tensors = DeepSeekTensors();
  auto checkpoint = Open(DeepSeekConfig(), tensors);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE(checkpoint->weights().mtp.has_value());
  EXPECT_EQ(std::get<MoeWeights>(checkpoint->weights().mtp->layer.ffn).experts.size(), 8);
  const int64_t with_mtp = checkpoint->parameters().total;
  const int64_t active = checkpoint->parameters().active;

  std::erase_if(tensors, [](const auto& tensor) {
    return absl::StartsWith(tensor.first, "model.layers.3.");
  });
  checkpoint = Open(DeepSeekConfig(), tensors);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE(checkpoint->description().mtp.has_value());
  EXPECT_FALSE(checkpoint->weights().mtp.has_value());
  EXPECT_LT(checkpoint->parameters().total, with_mtp);
  EXPECT_EQ(checkpoint->parameters().active, active);
}

TEST_F(FolderTest, OldLlamaCheckpointsHoldFrequencies) {
  json config = GoldenConfig("qwen2");
  config["model_type"] = "llama";
  config["architectures"] = {"LlamaForCausalLM"};
  for (const char* key :
       {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}) {
    config.erase(key);
  }
  Tensors tensors = QwenTensors();
  std::erase_if(tensors, [](const auto& tensor) { return absl::EndsWith(tensor.first, ".bias"); });
  Add(tensors, "model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  const auto checkpoint = Open(config, tensors);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
}

struct BadTensor {
  const char* name;
  FakeTensor tensor;  // without a shape it is taken away
  const char* found;
  const char* wanted;
};

constexpr const char* kL1 = "model.layers.1.";

TEST_F(FolderTest, TellsWhichTensorIsWrong) {
  const std::vector<BadTensor> qwen = {
      {"self_attn.q_proj.bias", {}, "nothing", "[64]"},
      {"self_attn.k_proj.bias", {.shape = {64}}, "shape: found [64]", "[16]"},
      {"self_attn.v_proj.weight", {.shape = {64, 16}}, "shape: found [64, 16]", "[16, 64]"},
      {"self_attn.o_proj.bias", {.shape = {64}}, "[64]", "no such tensor"},
      {"self_attn.q_norm.weight", {.shape = {8}}, "[8]", "no such tensor"},
      {"self_attn.rotary_emb.inv_freq", {.shape = {4}}, "[4]", "no such tensor"},
      {"mlp.up_proj.weight", {"I32", {96, 64}}, "dtype: found I32", "BF16, F16 or F32"},
  };
  const std::vector<BadTensor> gpt_oss = {
      {"self_attn.sinks", {}, "nothing", "[8]"},
      {"self_attn.sinks", {.shape = {2}}, "shape: found [2]", "[8]"},
      {"mlp.router.bias", {}, "nothing", "[8]"},
      {"mlp.experts.gate_up_proj",
       {.shape = {8, 128, 64}},
       "shape: found [8, 128, 64]",
       "[8, 64, 128]"},
      {"mlp.experts.gate_up_proj_bias", {.shape = {8, 64}}, "shape: found [8, 64]", "[8, 128]"},
      {"mlp.experts.down_proj", {}, "nothing", "[8, 64, 64]"},
      {"mlp.experts.0.down_proj.weight", {.shape = {64, 64}}, "[64, 64]", "no such tensor"},
  };
  const std::vector<BadTensor> deepseek = {
      {"self_attn.kv_b_proj.weight", {}, "nothing", "[256, 32]"},
      {"self_attn.kv_a_proj_with_mqa.weight",
       {.shape = {32, 64}},
       "shape: found [32, 64]",
       "[48, 64]"},
      {"self_attn.q_proj.weight", {.shape = {256, 64}}, "[256, 64]", "no such tensor"},
      {"mlp.gate.e_score_correction_bias", {}, "nothing", "[8]"},
      {"mlp.experts.7.up_proj.weight", {}, "nothing", "[32, 64]"},
      {"mlp.experts.8.up_proj.weight", {.shape = {32, 64}}, "[32, 64]", "no such tensor"},
      {"mlp.shared_experts.gate_proj.weight",
       {.shape = {64, 64}},
       "shape: found [64, 64]",
       "[32, 64]"},
  };
  const auto check = [&](const json& config, const Tensors& tensors,
                         const std::vector<BadTensor>& cases) {
    for (const BadTensor& test : cases) {
      Tensors spoilt = tensors;
      const std::string name = absl::StrCat(kL1, test.name);
      spoilt.erase(name);
      if (!test.tensor.shape.empty()) spoilt[name] = test.tensor;
      const auto checkpoint = Open(config, spoilt);
      SCOPED_TRACE(name);
      ASSERT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
      const std::string message(checkpoint.status().message());
      const std::string found =
          absl::StrContains(test.found, "found ") ? test.found : absl::StrCat("found ", test.found);
      EXPECT_THAT(message, StartsWith(folder_ + ": "));
      EXPECT_THAT(message, HasSubstr(absl::StrCat(name, ": ", found, ", wanted ", test.wanted)));
    }
  };
  check(GoldenConfig("qwen2"), QwenTensors(), qwen);
  check(GoldenConfig("gpt_oss"), GptOssTensors(), gpt_oss);
  check(DeepSeekConfig(), DeepSeekTensors(), deepseek);
}

}  // namespace
}  // namespace troupe
