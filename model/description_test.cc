#include "model/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace troupe {
namespace {

using ::testing::HasSubstr;

AttentionDescription Attention(AttentionKind kind) {
  AttentionDescription attention{
      .kind = kind, .heads = 8, .kv_heads = 2, .head_dim = 64, .value_dim = 64};
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

TEST(ValidateDescriptionTest, NamesTheFieldThatIsWrong) {
  ASSERT_TRUE(ValidateDescription(Example()).ok()) << ValidateDescription(Example());
  const BadField cases[] = {
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
  for (const BadField& test : cases) {
    ModelDescription model = Example();
    test.spoil(model);
    const absl::Status status = ValidateDescription(model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.field));
  }
}

}  // namespace
}  // namespace troupe
