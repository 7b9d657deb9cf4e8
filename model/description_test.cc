#include "model/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

namespace troupe {
namespace {

using ::testing::HasSubstr;

AttentionDescription Attention(AttentionKind kind) {
  AttentionDescription attention{.kind = kind,
                                 .heads = 8,
                                 .kv_heads = 2,
                                 .head_dim = 64,
                                 .value_dim = 64,
                                 .score_scale = 0.125F};
  if (kind != AttentionKind::kFull) attention.window_tokens = 256;
  if (kind == AttentionKind::kNsa) attention.nsa = NsaDescription{};
  return attention;
}

// Abacus' kinds of layers: four sliding, four NSA, an MTP layer.
ModelDescription Example() {
  ModelDescription model{
      .vocab_size = 512, .hidden_size = 256, .rms_epsilon = 1e-6f, .max_context_tokens = 65536};
  for (int i = 0; i < 8; ++i) {
    model.layers.push_back(
        {Attention(i < 4 ? AttentionKind::kSliding : AttentionKind::kNsa), DenseFfn{768}});
  }
  model.early_exit_layers = {3, 5};
  model.mtp = MtpDescription{{Attention(AttentionKind::kSliding), DenseFfn{768}}};
  return model;
}

// In FP8 a row is a code for each channel, and behind the rows of all heads a scale for each.
TEST(StateGroupsTest, HaveRoomForScales) {
  const StateGroupOptions options = {.kv_bytes_per_element = 1, .kv_scale_bytes = 1};
  const auto plain = StateGroups(Example(), {.kv_bytes_per_element = 1});
  const auto scaled = StateGroups(Example(), options);
  for (size_t g = 0; g < scaled.size(); ++g) {
    int64_t rows = 0;
    for (const StateStream& stream : scaled[g].streams) {
      const int64_t own = int64_t{stream.kv_heads} * scaled[g].entries_per_block;
      EXPECT_EQ(stream.value_offset_bytes - stream.key_offset_bytes, own * (stream.key_dim + 1));
      rows += 2 * own;
    }
    EXPECT_EQ(scaled[g].page_bytes, plain[g].page_bytes + rows);
  }
}

TEST(StateGroupsTest, AreFullWindowsThenCompressed) {
  const auto groups = StateGroups(Example(), {.kv_bytes_per_element = 2, .with_mtp = false});
  ASSERT_EQ(groups.size(), 4);
  EXPECT_EQ(groups[0].name, "full");
  EXPECT_EQ(groups[1].name, "window.256");
  EXPECT_EQ(groups[2].name, "window.32");
  EXPECT_EQ(groups[3].name, "compressed.16");

  EXPECT_EQ(groups[0].streams.size(), 4);
  EXPECT_EQ(groups[1].streams.size(), 8);
  EXPECT_EQ(groups[2].streams.size(), 4);
  EXPECT_EQ(groups[3].streams.size(), 4);
  EXPECT_EQ(groups[0].streams[0].layer, 4);
  EXPECT_EQ(groups[0].streams[0].branch, KvBranch::kNsaSelected);
  EXPECT_EQ(groups[1].streams[0].branch, KvBranch::kSelf);
  EXPECT_EQ(groups[1].streams[4].branch, KvBranch::kNsaWindow);
  EXPECT_EQ(groups[2].streams[0].branch, KvBranch::kNsaRaw);
  EXPECT_EQ(groups[3].streams[0].branch, KvBranch::kNsaCompressed);

  EXPECT_EQ(groups[0].entries_per_block, 64);
  EXPECT_EQ(groups[3].entries_per_block, 4);
  EXPECT_EQ(groups[3].stride_tokens, 16);
  // 64 entries of K and V, 2 heads of 64, 2 bytes, for each layer.
  EXPECT_EQ(groups[0].page_bytes, 4 * 64 * 2 * 2 * 64 * 2);
  EXPECT_EQ(groups[1].page_bytes, 8 * 64 * 2 * 2 * 64 * 2);
  EXPECT_EQ(groups[3].page_bytes, 4 * 4 * 2 * 2 * 64 * 2);
}

TEST(StateGroupsTest, StreamsTileThePage) {
  for (const StateGroup& group :
       StateGroups(Example(), {.kv_bytes_per_element = 4, .with_mtp = true})) {
    int64_t offset = 0;
    for (const StateStream& stream : group.streams) {
      EXPECT_EQ(stream.key_offset_bytes, offset) << group.name;
      offset += int64_t{4} * stream.kv_heads * group.entries_per_block * stream.key_dim;
      EXPECT_EQ(stream.value_offset_bytes, offset) << group.name;
      offset += int64_t{4} * stream.kv_heads * group.entries_per_block * stream.value_dim;
    }
    EXPECT_EQ(group.page_bytes, offset) << group.name;
  }
}

TEST(StateGroupsTest, TheMtpLayerJoinsTheWindow) {
  const ModelDescription model = Example();
  const auto groups = StateGroups(model, {.with_mtp = true});
  ASSERT_EQ(groups[1].streams.size(), 9);
  EXPECT_EQ(groups[1].streams.back().layer, model.mtp_layer_index());
}

TEST(StateGroupsTest, ADenseModelHasOneGroup) {
  ModelDescription model = Example();
  model.layers = {{Attention(AttentionKind::kFull), DenseFfn{768}}};
  model.early_exit_layers.clear();
  const auto groups = StateGroups(model, {});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].name, "full");
  EXPECT_EQ(groups[0].streams[0].branch, KvBranch::kSelf);
}

AttentionDescription LatentAttention() {
  AttentionDescription attention = Attention(AttentionKind::kFull);
  attention.kv_heads = attention.heads;
  attention.head_dim = 48;
  attention.rope = {.kind = RopeKind::kInterleaved,
                    .rotated_dims = 16,
                    .inverse_frequency = std::vector<float>(8, 0.5F)};
  attention.mla = MlaDescription{.query_latent_dim = 24,
                                 .latent_dim = 128,
                                 .nope_dim = 32,
                                 .rope_dim = 16,
                                 .norm_epsilon = 1e-6F};
  return attention;
}

TEST(StateGroupsTest, LatentAttentionKeepsOneRowAToken) {
  ModelDescription model = Example();
  model.layers = {{LatentAttention(), DenseFfn{768}}, {LatentAttention(), DenseFfn{768}}};
  model.early_exit_layers.clear();
  model.mtp.reset();
  ASSERT_TRUE(ValidateDescription(model).ok()) << ValidateDescription(model);
  const auto groups = StateGroups(model, {.kv_bytes_per_element = 2});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].name, "full");
  ASSERT_EQ(groups[0].streams.size(), 2);
  const StateStream& stream = groups[0].streams[1];
  EXPECT_EQ(stream.branch, KvBranch::kMlaLatent);
  EXPECT_EQ(stream.kv_heads, 1);
  EXPECT_EQ(stream.key_dim, 144);
  EXPECT_EQ(stream.value_dim, 0);
  EXPECT_EQ(stream.key_offset_bytes, 64 * 144 * 2);
  EXPECT_EQ(groups[0].page_bytes, 2 * 64 * 144 * 2);
}

TEST(StateGroupsTest, WindowsStopGrowing) {
  const auto groups = StateGroups(Example(), {});
  EXPECT_EQ(StateBytes(groups, 0), 0);
  int64_t one_block = 0;
  for (const StateGroup& group : groups) one_block += group.page_bytes;
  EXPECT_EQ(StateBytes(groups, 1), one_block);
  EXPECT_EQ(StateBytes(groups, 64), one_block);
  // From there on only the full and compressed groups grow.
  EXPECT_EQ(StateBytes(groups, 65536) - StateBytes(groups, 65536 - 64),
            groups[0].page_bytes + groups[3].page_bytes);
}

TEST(CompressedRowTest, AnEntryLiesInTheBlockOfItsLastToken) {
  const NsaDescription nsa;
  const int rows_per_block = kBlockTokens / nsa.compress_stride;
  for (int64_t entry = 0; entry < 100; ++entry) {
    const int64_t last_token = entry * nsa.compress_stride + nsa.compress_block - 1;
    EXPECT_EQ(CompressedRow(nsa, entry), entry + 1);
    EXPECT_EQ(CompressedRow(nsa, entry) / rows_per_block, last_token / kBlockTokens);
    EXPECT_EQ(CompressedEntries(nsa, last_token), entry);
    EXPECT_EQ(CompressedEntries(nsa, last_token + 1), entry + 1);
  }
}

struct BadField {
  const char* field;
  std::function<void(ModelDescription&)> spoil;
};

void ExpectEachFails(const ModelDescription& sound, const std::vector<BadField>& cases) {
  ASSERT_TRUE(ValidateDescription(sound).ok()) << ValidateDescription(sound);
  for (const BadField& test : cases) {
    ModelDescription model = sound;
    test.spoil(model);
    const absl::Status status = ValidateDescription(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.field));
  }
}

TEST(ValidateDescriptionTest, NamesTheFieldThatIsWrong) {
  const std::vector<BadField> cases = {
      {"vocab_size", [](auto& m) { m.vocab_size = 0; }},
      {"hidden_size", [](auto& m) { m.hidden_size = -1; }},
      {"rms_epsilon", [](auto& m) { m.rms_epsilon = 0; }},
      {"max_context_tokens", [](auto& m) { m.max_context_tokens = 0; }},
      {"layers", [](auto& m) { m.layers.clear(); }},
      {"end_tokens", [](auto& m) { m.end_tokens = {512}; }},
      {"kv_heads", [](auto& m) { m.layers[1].attention.kv_heads = 3; }},
      {"value_dim", [](auto& m) { m.layers[1].attention.value_dim = 0; }},
      {"rope.rotated_dims",
       [](auto& m) {
         m.layers[1].attention.rope = {.kind = RopeKind::kHalfSplit, .rotated_dims = 63};
       }},
      {"rope.inverse_frequency",
       [](auto& m) {
         m.layers[1].attention.rope = {.kind = RopeKind::kHalfSplit, .rotated_dims = 64};
       }},
      {"window_tokens", [](auto& m) { m.layers[1].attention.window_tokens = 0; }},
      {"nsa", [](auto& m) { m.layers[5].attention.nsa.reset(); }},
      {"compress_stride", [](auto& m) { m.layers[5].attention.nsa->compress_stride = 24; }},
      {"compress_block", [](auto& m) { m.layers[5].attention.nsa->compress_block = 40; }},
      {"select_block", [](auto& m) { m.layers[5].attention.nsa->select_block = 32; }},
      {"selected_blocks", [](auto& m) { m.layers[5].attention.nsa->selected_blocks = 2; }},
      {"local_blocks", [](auto& m) { m.layers[5].attention.nsa->local_blocks = 0; }},
      {"head_gate", [](auto& m) { m.layers[0].attention.head_gate = HeadGateDescription{}; }},
      {"ffn.inner_size", [](auto& m) { m.layers[0].ffn = DenseFfn{}; }},
      {"ffn.experts", [](auto& m) { m.layers[0].ffn = MoeFfn{}; }},
      {"ffn.experts_per_token",
       [](auto& m) {
         m.layers[0].ffn = MoeFfn{.experts = 2, .experts_per_token = 3, .expert_inner_size = 4};
       }},
      {"early_exit_layers",
       [](auto& m) {
         m.early_exit_layers = {5, 3};
       }},
      {"early_exit_layers", [](auto& m) { m.early_exit_layers = {7}; }},
      {"MTP layer", [](auto& m) { m.mtp->layer.attention.heads = 0; }},
  };
  ExpectEachFails(Example(), cases);
}

TEST(ValidateDescriptionTest, NamesTheNumberThatIsWrong) {
  const std::vector<BadField> cases = {
      {"score_scale", [](auto& m) { m.layers[1].attention.score_scale = 0; }},
      {"rope.inverse_frequency",
       [](auto& m) {
         m.layers[1].attention.rope = {.kind = RopeKind::kHalfSplit,
                                       .rotated_dims = 4,
                                       .inverse_frequency = {1.0F, std::nanf("")}};
       }},
      {"rope.amplitude",
       [](auto& m) {
         m.layers[1].attention.rope = {.kind = RopeKind::kHalfSplit,
                                       .rotated_dims = 2,
                                       .inverse_frequency = {1.0F},
                                       .amplitude = 0.0F};
       }},
      {"embedding_scale", [](auto& m) { m.embedding_scale = 0; }},
      {"norm_weight_offset", [](auto& m) { m.norm_weight_offset = std::nanf(""); }},
      {"sinks", [](auto& m) { m.layers[5].attention.sinks = true; }},
      {"qk_norm", [](auto& m) { m.layers[5].attention.qk_norm = QkNorm::kFullWidth; }},
      {"ffn.activation.alpha",
       [](auto& m) {
         m.layers[0].ffn =
             DenseFfn{.inner_size = 8, .activation = {.kind = ActivationKind::kClampedSilu}};
       }},
      {"ffn.activation.limit",
       [](auto& m) {
         m.layers[0].ffn = DenseFfn{
             .inner_size = 8, .activation = {.kind = ActivationKind::kClampedSilu, .alpha = 1}};
       }},
  };
  ExpectEachFails(Example(), cases);
}

TEST(ValidateDescriptionTest, NamesTheFieldOfLatentAttentionThatIsWrong) {
  const std::vector<BadField> cases = {
      {"mla", [](auto& m) { m.layers[0].attention.kind = AttentionKind::kSliding; }},
      {"mla.query_latent_dim", [](auto& m) { m.layers[0].attention.mla->query_latent_dim = -1; }},
      {"mla.latent_dim", [](auto& m) { m.layers[0].attention.mla->latent_dim = 0; }},
      {"mla.nope_dim", [](auto& m) { m.layers[0].attention.mla->nope_dim = 0; }},
      {"mla.rope_dim", [](auto& m) { m.layers[0].attention.mla->rope_dim = 0; }},
      {"mla.norm_epsilon", [](auto& m) { m.layers[0].attention.mla->norm_epsilon = 0; }},
      {"head_dim", [](auto& m) { m.layers[0].attention.mla->nope_dim = 33; }},
      {"kv_heads", [](auto& m) { m.layers[0].attention.kv_heads = 4; }},
      {"rope.rotated_dims",
       [](auto& m) {
         m.layers[0].attention.rope.rotated_dims = 8;
         m.layers[0].attention.rope.inverse_frequency.resize(4);
       }},
      {"qk_norm", [](auto& m) { m.layers[0].attention.qk_norm = QkNorm::kPerHead; }},
      {"sinks", [](auto& m) { m.layers[0].attention.sinks = true; }},
  };
  ModelDescription model = Example();
  model.layers[0].attention = LatentAttention();
  model.layers[0].attention.window_tokens = 8;
  ExpectEachFails(model, cases);
}

TEST(ValidateDescriptionTest, NamesTheFieldOfExpertsThatIsWrong) {
  const std::vector<BadField> cases = {
      {"ffn.shared_inner_size",
       [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).shared_inner_size = -1; }},
      {"ffn.router.weight_scale",
       [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.weight_scale = 0; }},
      {"ffn.router.groups", [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.groups = 3; }},
      {"ffn.router.groups", [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.groups = 8; }},
      {"ffn.router.groups",
       [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.group_score = GroupScore::kNone; }},
      {"ffn.router.groups_chosen",
       [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.groups_chosen = 5; }},
      {"ffn.experts_per_token",
       [](auto& m) { std::get<MoeFfn>(m.layers[0].ffn).router.groups_chosen = 1; }},
      {"experts of all layers",
       [](auto& m) {
         std::get<MoeFfn>(m.layers[0].ffn).experts = 8192;
         m.layers.assign(64, m.layers[0]);
       }},
  };
  ModelDescription model = Example();
  model.layers[0].ffn =
      MoeFfn{.experts = 8,
             .experts_per_token = 4,
             .expert_inner_size = 4,
             .router = {.group_score = GroupScore::kTopTwoSum, .groups = 4, .groups_chosen = 2}};
  ExpectEachFails(model, cases);
}

}  // namespace
}  // namespace troupe
