// NSA decode touches what it selects, and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/ops_test_table.h"

namespace troupe {
namespace {

struct NsaDecode {
  std::vector<int32_t> selected;  // [G, selected_blocks]
  std::vector<float> out;
};

// The last token of a sequence: compression with selection, selection's attention, the window.
NsaDecode DecodeNsa(const Backend& backend, const NsaCase& c, int position, uint32_t slot,
                    const TestPages& compressed, const TestPages& selected_pages,
                    const TestPages& window_pages) {
  constexpr int kWindow = 256;
  TestDevice device(backend);
  TestRandom random(TestSeed());
  const std::vector<Sequence> sequences = {{position, 1}};
  const StepBatch batch = PutStep(device, sequences, {slot}, {{0, 0, 1}});
  const Matrix query = RandomMatrix(1, int64_t{c.heads} * c.head_dim, random);
  const Tensor q = device.Put(query);
  const Tensor out = device.Put(query);
  const float* factor = device.Put(std::vector<float>(c.heads, 0.5F));
  const float scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  int32_t* selected = device.Put(std::vector<int32_t>(c.kv_heads * c.sizes.selected_blocks));
  const auto mix = [&](bool accumulate) {
    return HeadMix{
        .factor = factor, .token_stride = c.heads, .head_stride = 1, .accumulate = accumulate};
  };
  const TestPages::OnDevice cmp = compressed.Put(device);
  const TestPages::OnDevice slc = selected_pages.Put(device);
  const TestPages::OnDevice win = window_pages.Put(device);
  device.ops().NsaSelect({.batch = batch.view,
                          .sizes = c.sizes,
                          .heads = c.heads,
                          .scale = scale,
                          .q = q,
                          .k = cmp.k,
                          .v = cmp.v,
                          .tables = cmp.tables,
                          .mix = mix(false),
                          .out = out,
                          .selected = selected});
  device.ops().NsaAttention({.batch = batch.view,
                             .heads = c.heads,
                             .selected_blocks = c.sizes.selected_blocks,
                             .scale = scale,
                             .q = q,
                             .k = slc.k,
                             .v = slc.v,
                             .tables = slc.tables,
                             .selected = selected,
                             .mix = mix(true),
                             .out = out});
  device.ops().PagedAttention({.batch = batch.view,
                               .heads = c.heads,
                               .window = kWindow,
                               .scale = scale,
                               .q = q,
                               .k = win.k,
                               .v = win.v,
                               .tables = win.tables,
                               .mix = mix(true),
                               .out = out});
  return {device.Get(selected, c.kv_heads * c.sizes.selected_blocks), device.Get(out).values};
}

class NsaDecodeTest : public testing::TestWithParam<size_t> {};

TEST_P(NsaDecodeTest, ReadsNothingButCompressedSelectedAndWindowTokens) {
  constexpr int kPosition = 3000;
  constexpr int kFirstOfWindow = kPosition - 255;
  constexpr int kBlocks = kPosition / kBlockTokens + 1;
  const testing::ScopedTrace trace(__FILE__, __LINE__,
                                   absl::StrCat("TROUPE_TEST_SEED=", TestSeed()));
  const Backend& backend = Candidates()[GetParam()];
  const NsaCase c;
  const uint32_t slot = 1;
  TestRandom random(TestSeed() + 1);
  const TestPages::Shape tokens = {
      .kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.dtype};
  TestPages::Shape entries = tokens;
  entries.entries_per_page = kBlockTokens / c.sizes.compress_stride;
  TestPages compressed(entries, {slot}, kBlocks, random);
  compressed.FillEntries(slot, 1, (kPosition + 1) / c.sizes.compress_stride, random);
  TestPages selected_pages(tokens, {slot}, kBlocks, random);
  selected_pages.FillEntries(slot, 0, kPosition + 1, random);
  TestPages window_pages(tokens, {slot}, kBlocks, random);
  window_pages.FillEntries(slot, 0, kPosition + 1, random);
  const NsaDecode want =
      DecodeNsa(backend, c, kPosition, slot, compressed, selected_pages, window_pages);

  const std::vector<float> poison(c.head_dim, std::numeric_limits<float>::quiet_NaN());
  const auto poison_block = [&](TestPages& pages, int block, int head) {
    for (int e = block * kBlockTokens; e < (block + 1) * kBlockTokens; ++e) {
      for (const bool is_key : {true, false}) pages.SetEntry(slot, e, head, is_key, poison);
    }
  };
  int unread = 0;
  for (int block = 0; block < kBlocks; ++block) {
    int users = 0;
    for (int head = 0; head < c.kv_heads; ++head) {
      const auto list = want.selected.begin() + head * c.sizes.selected_blocks;
      const bool used = std::count(list, list + c.sizes.selected_blocks, block) > 0;
      users += used ? 1 : 0;
      if (!used) poison_block(selected_pages, block, head);
    }
    if (users == 0) selected_pages.Forget(slot, block);
    unread += users == 0 ? 1 : 0;
  }
  for (int token = 0; token < kFirstOfWindow; ++token) {
    for (int head = 0; head < c.kv_heads; ++head) {
      for (const bool is_key : {true, false}) {
        window_pages.SetEntry(slot, token, head, is_key, poison);
      }
    }
  }
  for (int block = 0; block < kFirstOfWindow / kBlockTokens; ++block) {
    window_pages.Forget(slot, block);
  }
  ASSERT_GT(unread, kBlocks / 2);
  const NsaDecode got =
      DecodeNsa(backend, c, kPosition, slot, compressed, selected_pages, window_pages);
  EXPECT_EQ(got.selected, want.selected);
  EXPECT_EQ(got.out, want.out);
}

INSTANTIATE_TEST_SUITE_P(All, NsaDecodeTest, testing::Range<size_t>(0, Candidates().size()),
                         [](const auto& info) { return Candidates()[info.param].name; });

}  // namespace
}  // namespace troupe
