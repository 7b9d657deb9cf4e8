#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/identity.h"
#include "model/json_reader.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string AbacusFolder() {
  const char* root = std::getenv("TROUPE_SOURCE_DIR");
  return std::string(root != nullptr ? root : ".") + "/models/abacus";
}

TEST(CheckpointTest, OpensAbacus) {
  const auto checkpoint = Checkpoint::Open(AbacusFolder());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ParameterCounts& counts = checkpoint->parameters();
  EXPECT_EQ(counts.total, 11'190'512);
  EXPECT_EQ(counts.tensors, 528);
  // Seven layers use 2 of 16 experts of 3 * 64 * 256; the early exits' two norms and the MTP module
  // are not used either.
  const int64_t mtp = 1'066'880;
  EXPECT_EQ(counts.active, counts.total - 7 * 14 * 3 * 64 * 256 - 2 * 256 - mtp);
  EXPECT_EQ(counts.bytes_by_dtype.at(StoredDType::kF32), 7 * 16 * 4);
  EXPECT_EQ(counts.bytes_by_dtype.at(StoredDType::kBF16), 2 * (counts.total - 7 * 16));

  const ModelWeights& weights = checkpoint->weights();
  EXPECT_EQ(weights.embedding.ShapeString(), "[512, 256]");
  EXPECT_NE(weights.lm_head.weight.Contiguous(), weights.embedding.bytes.data());
  ASSERT_EQ(weights.layers.size(), 8);
  EXPECT_EQ(weights.early_exit_norms.size(), 2);
  const auto& kv = std::get<KvWeights>(weights.layers[0].attention.kv);
  EXPECT_EQ(kv.k_proj.weight.name(), "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(kv.k_proj.out_features, 128);
  EXPECT_EQ(kv.k_proj.in_features, 256);
  const auto& nsa = std::get<NsaWeights>(weights.layers[7].attention.kv);
  EXPECT_EQ(nsa.window.v_proj.weight.name(), "model.layers.7.self_attn.win_v_proj.weight");
  EXPECT_EQ(nsa.branch_gate.out_features, 24);
  EXPECT_EQ(nsa.phi_k.position.ShapeString(), "[32, 64]");
  const auto& moe = std::get<MoeWeights>(weights.layers[1].ffn);
  EXPECT_EQ(moe.experts.size(), 16);
  EXPECT_EQ(moe.experts[15].down_proj.weight.name(),
            "model.layers.1.mlp.experts.15.down_proj.weight");
  EXPECT_EQ(moe.correction_bias.dtype, StoredDType::kF32);
  ASSERT_TRUE(weights.mtp.has_value());
  EXPECT_EQ(weights.mtp->input_proj.in_features, 512);

  EXPECT_THAT(checkpoint->description().end_tokens, ElementsAre(2));
  EXPECT_FALSE(checkpoint->generation_defaults().do_sample);
  EXPECT_EQ(checkpoint->generation_defaults().max_new_tokens, 512);
  const std::vector<float> norm = ReadAsF32(weights.final_norm);
  ASSERT_EQ(norm.size(), 256);
  for (float value : norm) EXPECT_GT(std::abs(value), 0.0f);
}

// A tiny model of Abacus' family, written file by file so that each test can spoil one thing.
class TinyFolderTest : public ::testing::Test {
 protected:
  using Tensors = std::map<std::string, std::pair<std::string, std::vector<int64_t>>>;

  void SetUp() override {
    folder_ = ::testing::TempDir() + "checkpoint_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    const auto config = ReadJsonFile(AbacusFolder() + "/config.json");
    ASSERT_TRUE(config.ok());
    config_ = *config;
    config_.update({{"vocab_size", 16},
                    {"hidden_size", 8},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 2},
                    {"num_key_value_heads", 1},
                    {"head_dim", 4},
                    {"layer_types", {"sliding_attention", "sliding_attention"}},
                    {"nsa_layers", {0, 0}},
                    {"no_rope_layers", {1, 1}},
                    {"intermediate_size", 8},
                    {"moe_intermediate_size", 4},
                    {"n_routed_experts", 2},
                    {"n_shared_experts", 0},
                    {"num_experts_per_tok", 1},
                    {"head_gate_dim", 3},
                    {"early_exit_layers", json::array({0})},
                    {"num_nextn_predict_layers", 0}});
    AddTensors();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void AddTensors() {
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      tensors_[name] = {"BF16", std::move(shape)};
    };
    add("model.embed_tokens.weight", {16, 8});
    add("lm_head.weight", {16, 8});
    add("model.norm.weight", {8});
    add("model.early_exit.0.norm.weight", {8});
    for (int i = 0; i < 2; ++i) {
      const std::string layer = absl::StrCat("model.layers.", i, ".");
      add(layer + "input_layernorm.weight", {8});
      add(layer + "post_attention_layernorm.weight", {8});
      add(layer + "self_attn.q_proj.weight", {8, 8});
      add(layer + "self_attn.k_proj.weight", {4, 8});
      add(layer + "self_attn.v_proj.weight", {4, 8});
      add(layer + "self_attn.o_proj.weight", {8, 8});
      add(layer + "self_attn.q_norm.weight", {4});
      add(layer + "self_attn.k_norm.weight", {4});
      add(layer + "self_attn.head_gate.down_proj.weight", {3, 8});
      add(layer + "self_attn.head_gate.up_proj.weight", {2, 3});
    }
    const auto add_ffn = [&](const std::string& prefix, int64_t inner) {
      add(prefix + "gate_proj.weight", {inner, 8});
      add(prefix + "up_proj.weight", {inner, 8});
      add(prefix + "down_proj.weight", {8, inner});
    };
    add_ffn("model.layers.0.mlp.", 8);
    add_ffn("model.layers.1.mlp.experts.0.", 4);
    add_ffn("model.layers.1.mlp.experts.1.", 4);
    add("model.layers.1.mlp.gate.weight", {2, 8});
    tensors_["model.layers.1.mlp.gate.e_score_correction_bias"] = {"F32", {2}};
  }

  void WriteText(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }

  absl::StatusOr<Checkpoint> Open() {
    WriteText("config.json", config_.dump());
    json header = json::object();
    uint64_t end = 0;
    for (const auto& [name, tensor] : tensors_) {
      uint64_t bytes = BitsPerElement(*DTypeFromName(tensor.first)) / 8;
      for (int64_t dim : tensor.second) bytes *= dim;
      header[name] = {
          {"dtype", tensor.first}, {"shape", tensor.second}, {"data_offsets", {end, end + bytes}}};
      end += bytes;
    }
    const std::string text = header.dump();
    const uint64_t size = text.size();
    std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
    WriteText("model.safetensors", file + text + std::string(end, 'x'));
    return Checkpoint::Open(folder_);
  }

  std::string Error() { return std::string(Open().status().message()); }

  std::string folder_;
  json config_;
  Tensors tensors_;
};

TEST_F(TinyFolderTest, Opens) {
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_FALSE(checkpoint->weights().mtp.has_value());
  EXPECT_FALSE(std::get<MoeWeights>(checkpoint->weights().layers[1].ffn).shared.has_value());
  EXPECT_EQ(checkpoint->tokenizer_path(), folder_ + "/tokenizer.json");
}

TEST_F(TinyFolderTest, ATiedHeadIsTheEmbedding) {
  config_["tie_word_embeddings"] = true;
  tensors_.erase("lm_head.weight");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->weights().lm_head.weight.Contiguous(),
            checkpoint->weights().embedding.bytes.data());
}

TEST_F(TinyFolderTest, WrongTensorsFailByName) {
  tensors_.erase("model.norm.weight");
  EXPECT_THAT(Error(), AllOf(HasSubstr(folder_), HasSubstr("model.norm.weight: found nothing"),
                             HasSubstr("wanted [8]")));
  AddTensors();
  tensors_["model.norm.bias"] = {"BF16", {8}};
  EXPECT_THAT(Error(), HasSubstr("model.norm.bias: found [8], wanted no such tensor"));
  tensors_.erase("model.norm.bias");
  tensors_["lm_head.weight"] = {"BF16", {8, 16}};
  EXPECT_THAT(Error(), HasSubstr("lm_head.weight: shape: found [8, 16], wanted [16, 8]"));
  tensors_["lm_head.weight"] = {"I16", {16, 8}};
  EXPECT_THAT(Error(), HasSubstr("lm_head.weight: dtype: found I16, wanted BF16, F16 or F32"));
  tensors_.clear();
  tensors_["nothing"] = {"BF16", {1}};
  EXPECT_THAT(Error(), HasSubstr(" more"));
}

TEST_F(TinyFolderTest, GenerationConfigGoesFirst) {
  WriteText("generation_config.json",
            R"({"eos_token_id":[3,4],"do_sample":true,"temperature":0.5,"top_k":7})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->description().end_tokens, ElementsAre(3, 4));
  EXPECT_TRUE(checkpoint->generation_defaults().do_sample);
  EXPECT_EQ(checkpoint->generation_defaults().temperature, 0.5f);
  EXPECT_EQ(checkpoint->generation_defaults().top_k, 7);
  EXPECT_EQ(checkpoint->generation_defaults().top_p, std::nullopt);

  for (const char* bad : {"[]", "{", R"({"eos_token_id":16})", R"({"top_p":2})",
                          R"({"temperature":"hot"})", R"({"num_beams":4})"}) {
    WriteText("generation_config.json", bad);
    EXPECT_THAT(Error(), HasSubstr("generation_config.json: ")) << bad;
  }
}

TEST_F(TinyFolderTest, GenerationConfigAsTransformersSavesIt) {
  WriteText("generation_config.json",
            R"({"_from_model_config":true,"bos_token_id":1,"eos_token_id":[3],"num_beams":1,)"
            R"("output_attentions":false,"output_hidden_states":false,"typical_p":1.0,)"
            R"("early_stopping":false,"guidance_scale":null,"transformers_version":"5.17.0"})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(checkpoint->description().end_tokens, ElementsAre(3));

  for (const char* bad : {R"({"typical_p":0.9})", R"({"no_repeat_ngram_size":3})",
                          R"({"guidance_scale":1.5})", R"({"suppress_tokens":[1]})"}) {
    WriteText("generation_config.json", bad);
    EXPECT_THAT(Error(), HasSubstr("generation_config.json: ")) << bad;
  }
}

TEST_F(TinyFolderTest, MissingFilesAreNotFound) {
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(), absl::StatusCode::kNotFound);
  WriteText("config.json", config_.dump());
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TinyFolderTest, IdentityIsOfTheBytesAlone) {
  WriteText("tokenizer.json", "{}");
  const auto identity = [&](int threads) {
    const auto checkpoint = Open();
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint->ComputeIdentity(threads).value();
  };
  const ModelIdentity first = identity(1);
  EXPECT_EQ(first.Hex().size(), 64);
  EXPECT_EQ(identity(3), first);
  WriteText("tokenizer.json", "{ }");
  EXPECT_NE(identity(1), first);
  WriteText("tokenizer.json", "{}");
  EXPECT_EQ(identity(1), first);
  config_["head_gate_threshold"] = 0.4;
  EXPECT_NE(identity(1), first);
}

TEST(IdentityTest, DependsOnNamesSizesAndOrderNotOnThreads) {
  std::string large(2 * kIdentityChunkBytes + 5, 'a');
  const auto bytes = [](const std::string& text) { return std::as_bytes(std::span(text)); };
  const std::string b = "b";
  const std::vector<IdentityFile> files = {{"x", bytes(large)}, {"y", bytes(b)}};
  uint64_t last_done = 0;
  uint64_t calls = 0;
  const auto one = HashFiles(files, 1, nullptr);
  const auto many = HashFiles(files, 4, [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last_done);
    EXPECT_EQ(total, large.size() + 1);
    last_done = done;
    ++calls;
  });
  EXPECT_EQ(one, many);
  EXPECT_EQ(last_done, large.size() + 1);
  EXPECT_EQ(calls, 4);
  EXPECT_NE(one, HashFiles({{"z", bytes(large)}, {"y", bytes(b)}}, 1, nullptr));
  EXPECT_NE(one, HashFiles({{"y", bytes(b)}, {"x", bytes(large)}}, 1, nullptr));
  large[kIdentityChunkBytes] = 'c';
  EXPECT_NE(one, HashFiles(files, 1, nullptr));
}

}  // namespace
}  // namespace troupe
