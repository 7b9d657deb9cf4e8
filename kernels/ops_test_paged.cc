// Runners of the operations on paged keys and values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/ops_test_cases.h"

namespace troupe {
namespace {

// [T, H * branches]: zero for a share of the heads, and for all heads of some tokens.
Matrix RandomFactors(int tokens, int heads, int branches, double closed, TestRandom& random) {
  std::uniform_real_distribution<double> uniform(0, 1);
  Matrix factors{tokens, int64_t{heads} * branches, {}};
  for (int token = 0; token < tokens; ++token) {
    const bool all_closed = uniform(random) < closed * closed;
    for (int head = 0; head < heads; ++head) {
      const bool head_closed = all_closed || uniform(random) < closed;
      for (int c = 0; c < branches; ++c) {
        const double factor = 0.1 + 0.9 * uniform(random);
        factors.values.push_back(head_closed ? 0 : static_cast<float>(factor));
      }
    }
  }
  return factors;
}

// By how much two roundings of nearly the same number may differ, relative to it.
float RoundingOf(DType dtype, float exact) {
  if (dtype == DType::kE4M3) return 0x1p-3F;
  return dtype == DType::kBf16 ? 0x1p-7F : exact;
}

// The last of `branches` factors of each head.
HeadMix MixOf(const Tensor& factors, int branches, bool accumulate) {
  return {.factor = factors.f32() + branches - 1,
          .token_stride = factors.stride,
          .head_stride = branches,
          .accumulate = accumulate};
}

// P of a token and KV head, in double, straight from the pages; by compression block.
std::vector<double> GroupMass(const NsaCase& c, const TestPages& pages, uint32_t slot,
                              int64_t position, int group, const float* q) {
  const int shift = c.sizes.compress_block / c.sizes.compress_stride - 1;
  const int64_t visible = std::max<int64_t>(0, (position + 1) / c.sizes.compress_stride - shift);
  std::vector<double> mass(visible, 0.0);
  const int group_heads = c.heads / c.kv_heads;
  for (int head = group * group_heads; head < (group + 1) * group_heads; ++head) {
    std::vector<double> weights;
    double sum = 0;
    for (int64_t i = 0; i < visible; ++i) {
      const std::vector<float> key = pages.Entry(slot, i + shift, group, true);
      double score = 0;
      for (int d = 0; d < c.head_dim; ++d) score += double{q[head * c.head_dim + d]} * key[d];
      weights.push_back(std::exp(score / std::sqrt(c.head_dim)));
      sum += weights.back();
    }
    for (int64_t i = 0; i < visible; ++i) mass[i] += weights[i] / sum;
  }
  return mass;
}

// S of a block; `mass` is P.
double BlockScore(const NsaSizes& sizes, const std::vector<double>& mass, int64_t block) {
  double score = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(mass.size()); ++i) {
    const int64_t begin = std::max<int64_t>(i * sizes.compress_stride, block * kBlockTokens);
    const int64_t end = std::min<int64_t>(i * sizes.compress_stride + sizes.compress_block,
                                          (block + 1) * kBlockTokens);
    if (begin < end) score += mass[i] * static_cast<double>(end - begin) / sizes.compress_stride;
  }
  return score;
}

// Checks the form of a selection and returns the scores of what was chosen by score, highest first:
// two blocks whose scores differ by rounding alone may stand for one another.
std::vector<float> ChosenScores(const NsaSizes& sizes, const std::vector<double>& mass,
                                int64_t position, const std::vector<int32_t>& selected) {
  const int own = static_cast<int>(position / kBlockTokens);
  const auto always = [&](int j) {
    return j < sizes.initial_blocks || j > own - sizes.local_blocks;
  };
  const int count = std::min(own + 1, sizes.selected_blocks);
  int forced = 0;
  std::vector<float> scores;
  for (int i = 0; i < sizes.selected_blocks; ++i) {
    if (i >= count) {
      EXPECT_EQ(selected[i], -1);
      continue;
    }
    EXPECT_GE(selected[i], i > 0 ? selected[i - 1] + 1 : 0);
    EXPECT_LE(selected[i], own);
    if (always(selected[i])) {
      ++forced;
    } else {
      scores.push_back(static_cast<float>(BlockScore(sizes, mass, selected[i])));
    }
  }
  for (int j = 0; j <= own; ++j) forced -= always(j) ? 1 : 0;
  EXPECT_EQ(forced, 0) << "an initial or a local block is missing at " << position;
  std::sort(scores.rbegin(), scores.rend());
  scores.resize(sizes.selected_blocks, 0);
  return scores;
}

TestPages::Shape CompressedShape(const NsaCase& c) {
  return {.kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .entries_per_page = kBlockTokens / c.sizes.compress_stride,
          .dtype = c.dtype};
}

TestPages::Shape TokenShape(const NsaCase& c) {
  return {.kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.dtype};
}

// Ascending, the token's own block among them, some short of selected_blocks.
std::vector<int32_t> RandomSelection(const NsaSizes& sizes, int64_t position, TestRandom& random) {
  const int own = static_cast<int>(position / kBlockTokens);
  std::vector<int32_t> blocks(own);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), random);
  blocks.resize(std::min<size_t>(blocks.size(), random() % sizes.selected_blocks));
  blocks.push_back(own);
  std::sort(blocks.begin(), blocks.end());
  blocks.resize(sizes.selected_blocks, -1);
  return blocks;
}

}  // namespace

int BlocksFor(const std::vector<Sequence>& sequences) {
  int tokens = 0;
  for (const Sequence& sequence : sequences) {
    tokens = std::max(tokens, sequence.start + sequence.count);
  }
  return tokens / kBlockTokens + 1;
}

Outputs RunKvWrite(const KvWriteCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  const TestPages pages({.kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.dtype}, slots,
                        BlocksFor(run.sequences), random);
  const TestPages::OnDevice cache = pages.Put(run.device);
  const int64_t cols = int64_t{c.kv_heads} * c.head_dim;
  const Matrix k = RandomMatrix(TokensOf(run.sequences), cols, random);
  const Matrix v = RandomMatrix(TokensOf(run.sequences), cols, random);
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    run.device.ops().KvWrite({.batch = batch.view,
                              .k = run.device.Put(k.Pick(batch.tokens)),
                              .v = run.device.Put(v.Pick(batch.tokens)),
                              .k_stream = cache.k,
                              .v_stream = cache.v,
                              .tables = cache.tables});
  }
  // All pages: nothing else may change. Exact, since rounding to nearest even has one answer.
  return {{"pages", pages.GetBytes(run.device, cache), 0}};
}

Outputs RunQkvWrite(const QkvWriteCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  const int value_dim = c.value_dim > 0 ? c.value_dim : c.head_dim;
  const TestPages pages(
      {.kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.dtype, .value_dim = value_dim},
      slots, BlocksFor(run.sequences), random);
  const TestPages::OnDevice cache = pages.Put(run.device);
  const int tokens = TokensOf(run.sequences);
  const Matrix q = RandomMatrix(tokens, int64_t{c.heads} * c.head_dim, random, 3);
  const Matrix k = RandomMatrix(tokens, int64_t{c.kv_heads} * c.head_dim, random, 3);
  const Matrix v = RandomMatrix(tokens, int64_t{c.kv_heads} * value_dim, random, 3);
  const float* q_norm = run.device.Put(RandomVector(c.head_dim, random, 1, 0.2F));
  const float* k_norm = run.device.Put(RandomVector(c.head_dim, random, 1, 0.2F));
  const float* frequency = run.device.Put(RandomVector(c.head_dim / 2, random, 0.5F, 0.1F));
  // As head_norm_rope's; keys in bf16 may round to the neighbour.
  TokenOutput queries(run, "q", q.cols, 4e-6F);
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    const auto heads = [&](const Matrix& x, int count, const float* norm) {
      return HeadNormRopeParams{.x = run.device.Put(x.Pick(batch.tokens)),
                                .heads = count,
                                .head_dim = c.head_dim,
                                .norm_weight = c.norm ? norm : nullptr,
                                .eps = 1e-6F,
                                .inverse_frequency = c.rope ? frequency : nullptr,
                                .position = batch.view.position,
                                .rotated_dims = c.rotated_dims,
                                .interleaved = c.interleaved};
    };
    QkvWriteParams params = {.q = heads(q, c.heads, q_norm), .k = heads(k, c.kv_heads, k_norm)};
    params.kv = {.batch = batch.view,
                 .k = params.k.x,
                 .v = run.device.Put(v.Pick(batch.tokens)),
                 .k_stream = cache.k,
                 .v_stream = cache.v,
                 .tables = cache.tables};
    run.device.ops().QkvWrite(params);
    queries.Put(batch.tokens, run.device.Get(params.q.x).values);
  }
  const float tolerance = RoundingOf(c.dtype, 4e-6F);
  return {queries.output(), {"pages", pages.Get(run.device, cache), tolerance}};
}

Outputs RunPagedAttention(const PagedAttentionCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  const int value_dim = c.value_dim > 0 ? c.value_dim : c.head_dim;
  TestPages pages(
      {.kv_heads = c.kv_heads, .head_dim = c.head_dim, .dtype = c.dtype, .value_dim = value_dim},
      slots, BlocksFor(run.sequences), random);
  for (size_t row = 0; row < slots.size(); ++row) {
    const Sequence& sequence = run.sequences[row];
    const int oldest = c.window > 0 ? std::max(0, sequence.start - c.window + 1) : 0;
    pages.FillEntries(slots[row], oldest, sequence.start + sequence.count, random);
    for (int block = 0; block < oldest / kBlockTokens; ++block) pages.Forget(slots[row], block);
  }
  const TestPages::OnDevice cache = pages.Put(run.device);
  const int tokens = TokensOf(run.sequences);
  const int64_t cols = int64_t{c.heads} * value_dim;
  const Matrix q = RandomMatrix(tokens, int64_t{c.heads} * c.head_dim, random, c.sharpness);
  // About as large as scores are, and as the largest of some hundred.
  const float* sinks = run.device.Put(RandomVector(c.heads, random, 1.5F, 2));
  const Matrix before = RandomMatrix(tokens, cols, random);
  const Matrix factors = RandomFactors(tokens, c.heads, 3, c.closed, random);
  // Large scores lose digits in proportion.
  TokenOutput out(run, "out", cols,
                  run.device.AttentionTolerance(c.dtype) * std::max(1.0F, c.sharpness));
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    const Tensor to = run.device.Put(before.Pick(batch.tokens));
    const Tensor step_factors = run.device.Put(factors.Pick(batch.tokens));
    run.device.ops().PagedAttention({.batch = batch.view,
                                     .heads = c.heads,
                                     .window = c.window,
                                     .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                                     .q = run.device.Put(q.Pick(batch.tokens)),
                                     .k = cache.k,
                                     .v = cache.v,
                                     .tables = cache.tables,
                                     .mix = MixOf(step_factors, 3, c.accumulate),
                                     .out = to,
                                     .sinks = c.sinks ? sinks : nullptr});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

Outputs RunNsaCompress(const NsaCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  const int blocks = BlocksFor(run.sequences);
  TestPages raw(TokenShape(c), slots, blocks, random);
  const TestPages compressed(CompressedShape(c), slots, blocks, random);
  for (size_t row = 0; row < slots.size(); ++row) {
    const Sequence& sequence = run.sequences[row];
    const int oldest = std::max(0, sequence.start - c.sizes.compress_block + 1);
    raw.FillEntries(slots[row], oldest, sequence.start + sequence.count, random);
    for (int block = 0; block < oldest / kBlockTokens; ++block) raw.Forget(slots[row], block);
  }
  const TestPages::OnDevice raw_cache = raw.Put(run.device);
  const TestPages::OnDevice cache = compressed.Put(run.device);
  const int64_t size = c.head_dim;
  const float scale = 1.5F / std::sqrt(static_cast<float>(size));
  const auto phi = [&] {
    return NsaPhi{run.device.Put(RandomVector(c.sizes.compress_block * size, random)),
                  run.device.Put(RandomVector(size * size, random, 0, scale)),
                  run.device.Put(RandomVector(size * size, random, 0, scale))};
  };
  const NsaPhi phi_k = phi();
  const NsaPhi phi_v = phi();
  const float* k_norm = run.device.Put(RandomVector(size, random, 1, 0.2F));
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    run.device.ops().NsaCompress({.batch = batch.view,
                                  .sizes = c.sizes,
                                  .raw_k = raw_cache.k,
                                  .raw_v = raw_cache.v,
                                  .raw_tables = raw_cache.tables,
                                  .phi_k = phi_k,
                                  .phi_v = phi_v,
                                  .k_norm = k_norm,
                                  .eps = 1e-6F,
                                  .k = cache.k,
                                  .v = cache.v,
                                  .tables = cache.tables});
  }
  // f32: two products of `size` terms and a softmax. bf16: rounding may fall to the next value.
  const float tolerance = RoundingOf(c.dtype, 2e-5F);
  return {{"pages", compressed.Get(run.device, cache), tolerance}};
}

// The compressed entries of every sequence; all of one key where the case says so.
void FillCompressed(const NsaCase& c, const Run& run, const std::vector<uint32_t>& slots,
                    TestPages& pages, TestRandom& random) {
  const int shift = c.sizes.compress_block / c.sizes.compress_stride - 1;
  const std::vector<float> one_key = RandomVector(c.head_dim, random);
  for (size_t row = 0; row < slots.size(); ++row) {
    const int end = (run.sequences[row].start + run.sequences[row].count) / c.sizes.compress_stride;
    pages.FillEntries(slots[row], shift, end, random);
    for (int entry = shift; c.equal_keys && entry < end; ++entry) {
      for (int head = 0; head < c.kv_heads; ++head) {
        pages.SetEntry(slots[row], entry, head, true, one_key);
      }
    }
  }
}

Outputs RunNsaSelect(const NsaCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  TestPages pages(CompressedShape(c), slots, BlocksFor(run.sequences), random);
  FillCompressed(c, run, slots, pages, random);
  const TestPages::OnDevice cache = pages.Put(run.device);
  const int tokens = TokensOf(run.sequences);
  const int64_t cols = int64_t{c.heads} * c.head_dim;
  const Matrix q = RandomMatrix(tokens, cols, random, 2);
  const Matrix before = RandomMatrix(tokens, cols, random);
  const Matrix factors = RandomFactors(tokens, c.heads, 1, c.closed, random);
  // Queries are twice as large as elsewhere.
  const float rounding = run.device.AttentionTolerance(c.dtype);
  TokenOutput out(run, "out", cols, std::max(2 * kAttentionTolerance, 2 * rounding));
  const int64_t list = int64_t{c.kv_heads} * c.sizes.selected_blocks;
  // Equal keys leave no doubt about the choice: ties, which the lower block wins.
  TokenOutput chosen(run, "selected", list, 0);
  chosen.output().only_between_runs = !c.equal_keys;
  // What rounding exchanges for another block is as good but for that rounding, in the mass of
  // every head of the group.
  const int group_heads = c.heads / c.kv_heads;
  TokenOutput scores(run, "scores of selected", list,
                     std::max(1e-5F, rounding > kAttentionTolerance ? group_heads * rounding : 0));
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    const Tensor to = run.device.Put(before.Pick(batch.tokens));
    const Tensor step_factors = run.device.Put(factors.Pick(batch.tokens));
    int32_t* to_selected = run.device.Put(std::vector<int32_t>(batch.tokens.size() * list, -7));
    run.device.ops().NsaSelect({.batch = batch.view,
                                .sizes = c.sizes,
                                .heads = c.heads,
                                .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                                .q = run.device.Put(q.Pick(batch.tokens)),
                                .k = cache.k,
                                .v = cache.v,
                                .tables = cache.tables,
                                .mix = MixOf(step_factors, 1, true),
                                .out = to,
                                .selected = to_selected});
    out.Put(batch.tokens, run.device.Get(to).values);
    const std::vector<int32_t> selected = run.device.Get(to_selected, batch.tokens.size() * list);
    chosen.Put(batch.tokens, selected);

    const auto position = run.device.Get(batch.view.position, batch.tokens.size());
    const auto token_row = run.device.Get(batch.view.token_row, batch.tokens.size());
    std::vector<float> values;
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
      const uint32_t slot = slots[batch.rows[token_row[i]]];
      for (int group = 0; group < c.kv_heads; ++group) {
        const auto first = selected.begin() + static_cast<int64_t>(i) * list +
                           int64_t{group} * c.sizes.selected_blocks;
        const std::vector<int32_t> blocks(first, first + c.sizes.selected_blocks);
        std::vector<float> block_scores(blocks.size(), 0);
        if (blocks.front() >= 0) {
          const std::vector<double> mass =
              GroupMass(c, pages, slot, position[i], group, q.Row(batch.tokens[i]));
          block_scores = ChosenScores(c.sizes, mass, position[i], blocks);
        }
        values.insert(values.end(), block_scores.begin(), block_scores.end());
      }
    }
    scores.Put(batch.tokens, values);
  }
  return {out.output(), chosen.output(), scores.output()};
}

Outputs RunNsaAttention(const NsaCase& c, const Run& run) {
  TestRandom random(run.seed);
  const std::vector<uint32_t> slots = RandomSlots(run.sequences.size(), random);
  TestPages pages(TokenShape(c), slots, BlocksFor(run.sequences), random);
  const int tokens = TokensOf(run.sequences);
  const int64_t list = int64_t{c.kv_heads} * c.sizes.selected_blocks;
  std::vector<int32_t> selected;
  for (size_t row = 0; row < slots.size(); ++row) {
    const Sequence& sequence = run.sequences[row];
    pages.FillEntries(slots[row], 0, sequence.start + sequence.count, random);
    for (int i = 0; i < sequence.count; ++i) {
      for (int group = 0; group < c.kv_heads; ++group) {
        const auto blocks = RandomSelection(c.sizes, sequence.start + i, random);
        selected.insert(selected.end(), blocks.begin(), blocks.end());
      }
    }
  }
  const Matrix factors = RandomFactors(tokens, c.heads, 1, c.closed, random);
  const int group_heads = c.heads / c.kv_heads;
  for (int token = 0; token < tokens; ++token) {
    for (int group = 0; group < c.kv_heads; ++group) {
      const float* factor = factors.Row(token) + group * group_heads;
      if (std::any_of(factor, factor + group_heads, [](float f) { return f != 0; })) continue;
      std::fill_n(selected.begin() + token * list + group * c.sizes.selected_blocks,
                  c.sizes.selected_blocks, -1);
    }
  }
  const TestPages::OnDevice cache = pages.Put(run.device);
  const int64_t cols = int64_t{c.heads} * c.head_dim;
  const Matrix q = RandomMatrix(tokens, cols, random);
  TokenOutput out(run, "out", cols, run.device.AttentionTolerance(c.dtype));
  for (const Step& step : run.steps) {
    const StepBatch batch = PutStep(run.device, run.sequences, slots, step);
    const Tensor to = run.device.Put(RandomMatrix(batch.view.tokens, cols, random));
    const Tensor step_factors = run.device.Put(factors.Pick(batch.tokens));
    std::vector<int32_t> step_selected;
    for (const int token : batch.tokens) {
      step_selected.insert(step_selected.end(), selected.begin() + token * list,
                           selected.begin() + (token + 1) * list);
    }
    run.device.ops().NsaAttention({.batch = batch.view,
                                   .heads = c.heads,
                                   .selected_blocks = c.sizes.selected_blocks,
                                   .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                                   .q = run.device.Put(q.Pick(batch.tokens)),
                                   .k = cache.k,
                                   .v = cache.v,
                                   .tables = cache.tables,
                                   .selected = run.device.Put(step_selected),
                                   .mix = MixOf(step_factors, 1, false),
                                   .out = to});
    out.Put(batch.tokens, run.device.Get(to).values);
  }
  return {out.output()};
}

}  // namespace troupe
