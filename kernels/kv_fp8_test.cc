// Keys and values in FP8 (kernels/e4m3.h), on every backend: what is written, against the formula
// and byte for byte against the reference, and every attention that reads it.
//
// Inputs are new in each run; TROUPE_TEST_SEED repeats one (each failure names its seed).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/e4m3.h"
#include "kernels/kv_entry.h"
#include "kernels/linear/coded_matrix.h"
#include "kernels/ops_test_cases.h"

namespace troupe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// ---- The format ----

TEST(E4M3Test, CodesAreTheNearest) {
  for (int code = 0; code < 0x7f; ++code) {
    const float value = FromE4M3(static_cast<uint8_t>(code));
    EXPECT_EQ(NearestE4M3Code(value), code);
    EXPECT_EQ(NearestE4M3Code(-value), code | 0x80);
    if (code == 0x7e) continue;
    const float next = FromE4M3(static_cast<uint8_t>(code + 1));
    const float middle = value + (next - value) / 2;
    EXPECT_EQ(NearestE4M3Code(middle), code + code % 2) << "a tie goes to the even one";
    EXPECT_EQ(NearestE4M3Code(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(NearestE4M3Code(std::nextafter(middle, next)), code + 1);
  }
  EXPECT_EQ(NearestE4M3Code(1e30F), 0x7e);
}

TEST(E4M3Test, ScalesAreTheLeastThatHoldTheLargest) {
  const auto scale_for = [](float largest) {
    return ScaleOf(ScaleForLargest(std::bit_cast<uint32_t>(largest)));
  };
  EXPECT_EQ(scale_for(448), 1);
  EXPECT_EQ(scale_for(std::nextafter(448.0F, kInfinity)), 2);
  EXPECT_EQ(scale_for(224), 0.5F);
  EXPECT_EQ(scale_for(1), 0x1p-8F);
  EXPECT_EQ(scale_for(1e30F), 0x1p7F) << "and what is beyond becomes 57344";
  EXPECT_EQ(scale_for(0), 0x1p-112F);
  EXPECT_EQ(scale_for(1e-40F), 0x1p-112F);
  EXPECT_TRUE(std::isnan(scale_for(kInfinity)));
}

// Relative to its own size where that is within 2^-14 of the row's largest number.
TEST(E4M3Test, RowsKeepFourDigits) {
  constexpr int kSize = 40;
  TestRandom random(std::random_device{}());
  for (int power = -100; power <= 10; power += 5) {
    std::vector<float> row = RandomVector(kSize, random, 0, std::ldexp(1.0F, power));
    E4M3 codes[kSize];
    const float scale = ScaleOf(EncodeRow(row.data(), kSize, codes));
    float largest = 0;
    for (const float value : row) largest = std::max(largest, std::fabs(value));
    for (int c = 0; c < kSize; ++c) {
      const float size = std::max(std::fabs(row[c]), std::ldexp(largest, -14));
      EXPECT_NEAR(FromE4M3(codes[c].bits) * scale, row[c], size / 16) << "2^" << power;
    }
  }
}

// ---- Operations ----

struct Case {
  std::string name;
  std::vector<Sequence> sequences;
  KvUse use;
  std::function<Outputs(const Run&)> run;
};

const std::vector<Sequence> kDecode = {{0, 1}, {63, 1}, {64, 1}, {301, 1}, {1030, 1}};
const std::vector<Sequence> kMixed = {{0, 33},  {37, 1},  {62, 5},  {128, 1}, {64, 64}, {255, 3},
                                      {256, 2}, {319, 1}, {700, 9}, {0, 1},   {511, 2}};
const std::vector<Sequence> kLong = {{3000, 3}, {5, 1}, {2047, 2}, {1023, 1}, {1500, 17}};
// A step whose blocks of threads have two warpgroups each on a large device.
const std::vector<Sequence> kPrompts = {{0, 300}, {200, 130}, {1030, 1}};

template <class Config>
Case Make(std::string name, std::vector<Sequence> sequences, KvUse use,
          Outputs (*runner)(const Config&, const Run&), Config config) {
  config.dtype = DType::kE4M3;
  return {std::move(name), std::move(sequences), use,
          [runner, config](const Run& run) { return runner(config, run); }};
}

Case Write(std::string name, std::vector<Sequence> sequences, KvWriteCase c) {
  return Make(std::move(name), std::move(sequences),
              {.key_dim = c.head_dim, .value_dim = c.head_dim}, RunKvWrite, c);
}

Case WriteAll(std::string name, std::vector<Sequence> sequences, QkvWriteCase c) {
  const int value_dim = c.value_dim > 0 ? c.value_dim : c.head_dim;
  return Make(std::move(name), std::move(sequences),
              {.key_dim = c.head_dim, .value_dim = value_dim}, RunQkvWrite, c);
}

Case Attend(std::string name, std::vector<Sequence> sequences, PagedAttentionCase c) {
  const int value_dim = c.value_dim > 0 ? c.value_dim : c.head_dim;
  return Make(std::move(name), std::move(sequences),
              {.key_dim = c.head_dim, .value_dim = value_dim}, RunPagedAttention, c);
}

template <class Config>
Case Nsa(std::string name, std::vector<Sequence> sequences,
         Outputs (*runner)(const Config&, const Run&), const Config& c) {
  return Make(std::move(name), std::move(sequences),
              {.reader = KvReader::kNsa, .key_dim = c.head_dim, .value_dim = c.head_dim}, runner,
              c);
}

Case Latent(std::string name, std::vector<Sequence> sequences, const MlaCase& c) {
  return Make(
      std::move(name), std::move(sequences),
      {.reader = KvReader::kLatentAttention, .key_dim = c.dims.latent_dim + c.dims.rope_dim},
      RunMlaAttention, c);
}

const std::vector<Case>& Cases() {
  const NsaCase small = {.sizes = {.compress_block = 32,
                                   .compress_stride = 16,
                                   .selected_blocks = 5,
                                   .initial_blocks = 1,
                                   .local_blocks = 2}};
  static const auto& cases = *new std::vector<Case>({
      Write("kv_write", kMixed, {}),
      Write("kv_write heads of 128", kMixed, {.kv_heads = 4, .head_dim = 128}),
      Write("kv_write odd", kMixed, {.kv_heads = 3, .head_dim = 37}),
      WriteAll("qkv_write", kMixed, {}),
      WriteAll("qkv_write heads of 128", kMixed, {.head_dim = 128}),
      WriteAll("qkv_write plain", kDecode, {.norm = false, .rope = false}),
      WriteAll("qkv_write interleaved", kMixed, {.rotated_dims = 32, .interleaved = true}),
      WriteAll("qkv_write smaller values", kDecode, {.head_dim = 96, .value_dim = 48}),
      Attend("attention", kMixed, {}),
      Attend("attention decode", kDecode, {.closed = 0}),
      Attend("attention long", kLong, {.heads = 8, .kv_heads = 1, .head_dim = 128, .closed = 0.1}),
      Attend("attention prompts", kPrompts,
             {.heads = 16, .kv_heads = 4, .head_dim = 128, .closed = 0, .accumulate = false}),
      Attend("attention heads of 80", kMixed, {.heads = 3, .kv_heads = 3, .head_dim = 80}),
      Attend("attention heads of 256", kLong, {.heads = 4, .kv_heads = 2, .head_dim = 256}),
      Attend("attention smaller values", kLong, {.head_dim = 48, .value_dim = 32}),
      Attend("attention odd heads", kMixed, {.head_dim = 37, .accumulate = false}),
      Attend("attention sinks", kLong, {.sinks = true}),
      Attend("attention window", kMixed, {.window = 256}),
      Attend("attention odd window", kMixed, {.head_dim = 128, .window = 37}),
      Attend("attention sinks in a window", kLong, {.sinks = true, .window = 128}),
      Nsa("nsa_compress", kMixed, RunNsaCompress, small),
      Nsa("nsa_select", kMixed, RunNsaSelect, small),
      Nsa("nsa_attention", kMixed, RunNsaAttention, small),
      Latent("mla absorbed", kMixed, {.forms = {MlaForm::kAbsorbed}}),
      Latent("mla expanded", kMixed, {.forms = {MlaForm::kExpanded}}),
  });
  return cases;
}

const std::vector<Backend>& Candidates() {
  static const auto& backends = *new std::vector<Backend>(CandidateBackends());
  return backends;
}

uint64_t Seed() {
  static const uint64_t seed = [] {
    const char* given = std::getenv("TROUPE_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }();
  return seed;
}

Outputs RunOn(const Backend& backend, const Case& c, const std::vector<Step>& steps) {
  TestDevice device(backend);
  return c.run({c.sequences, steps, device, Seed()});
}

const Outputs& Expected(const Case& c) {
  static auto& known = *new std::map<std::string, Outputs>();
  const auto [found, is_new] = known.try_emplace(c.name);
  if (is_new) found->second = RunOn(ReferenceBackend(), c, InOneStep(c.sequences));
  return found->second;
}

class KvFp8Test : public testing::TestWithParam<std::tuple<size_t, size_t>> {
 protected:
  const Backend& backend() const { return Candidates()[std::get<0>(GetParam())]; }
  const Case& test_case() const { return Cases()[std::get<1>(GetParam())]; }
  bool Takes() const { return TestDevice(backend()).ops().TakesE4M3(test_case().use); }

  const testing::ScopedTrace trace_{__FILE__, __LINE__, absl::StrCat("TROUPE_TEST_SEED=", Seed())};
};

TEST_P(KvFp8Test, AgreesWithTheReference) {
  if (!Takes()) GTEST_SKIP() << "this device does not take such keys and values";
  const std::vector<Step> steps = InOneStep(test_case().sequences);
  const Outputs& want = Expected(test_case());
  const Outputs got = RunOn(backend(), test_case(), steps);
  for (size_t o = 0; o < want.size(); ++o) {
    if (want[o].only_between_runs) continue;
    ASSERT_EQ(got[o].values.size(), want[o].values.size());
    const float tolerance = std::max(got[o].tolerance, want[o].tolerance);
    for (size_t i = 0; i < want[o].values.size(); ++i) {
      const float wanted = want[o].values[i];
      ASSERT_LE(std::fabs(got[o].values[i] - wanted), tolerance * std::max(1.0F, std::fabs(wanted)))
          << want[o].name << "[" << i << "]: " << got[o].values[i] << ", reference " << wanted;
    }
  }
}

TEST_P(KvFp8Test, TokensDoNotDependOnTheirSteps) {
  if (!Takes()) GTEST_SKIP() << "this device does not take such keys and values";
  const Case& c = test_case();
  TestRandom random(Seed());
  const Outputs want = RunOn(backend(), c, InOneStep(c.sequences));
  for (const auto& [steps, how] : {std::pair(EachAlone(c.sequences), "each sequence alone"),
                                   std::pair(TokenByToken(c.sequences), "token by token"),
                                   std::pair(RandomlyCut(c.sequences, random), "cut at random")}) {
    const Outputs got = RunOn(backend(), c, steps);
    for (size_t o = 0; o < want.size(); ++o) {
      ASSERT_EQ(got[o].values.size(), want[o].values.size());
      for (size_t i = 0; i < want[o].values.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(got[o].values[i]),
                  std::bit_cast<uint32_t>(want[o].values[i]))
            << want[o].name << "[" << i << "] " << how;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, KvFp8Test,
                         testing::Combine(testing::Range<size_t>(0, Candidates().size()),
                                          testing::Range<size_t>(0, Cases().size())),
                         [](const auto& info) {
                           return absl::StrReplaceAll(
                               absl::StrCat(Candidates()[std::get<0>(info.param)].name, "_",
                                            Cases()[std::get<1>(info.param)].name),
                               {{" ", "_"}});
                         });

// Rows of zeros, of tiny and of huge numbers, and of what is no number.
TEST(KvFp8DeviceTest, UnusualRowsGetTheSameBytes) {
  constexpr int kHeadDim = 32;
  const std::vector<float> firsts = {0,
                                     -0.0F,
                                     448,
                                     449,
                                     1e-30F,
                                     1e-42F,
                                     57344,
                                     60000,
                                     1e30F,
                                     1e-3F,
                                     kInfinity,
                                     -kInfinity,
                                     std::numeric_limits<float>::quiet_NaN()};
  const int tokens = static_cast<int>(firsts.size());
  TestRandom random(Seed());
  Matrix rows = RandomMatrix(tokens, kHeadDim, random, 0.3F);
  for (int t = 0; t < tokens; ++t) {
    rows.Row(t)[t] = firsts[t];
    if (firsts[t] == 0) std::fill_n(rows.Row(t), kHeadDim, firsts[t]);
  }
  const auto bytes_of = [&](const Backend& backend) {
    TestDevice device(backend);
    TestRandom same(1);
    const TestPages pages({.kv_heads = 1, .head_dim = kHeadDim, .dtype = DType::kE4M3}, {0}, 1,
                          same);
    const TestPages::OnDevice cache = pages.Put(device);
    const std::vector<Sequence> sequences = {{0, tokens}};
    const StepBatch batch = PutStep(device, sequences, {0}, InOneStep(sequences).front());
    device.ops().KvWrite({.batch = batch.view,
                          .k = device.Put(rows),
                          .v = device.Put(rows),
                          .k_stream = cache.k,
                          .v_stream = cache.v,
                          .tables = cache.tables});
    return pages.GetBytes(device, cache);
  };
  const std::vector<float> want = bytes_of(ReferenceBackend());
  for (const Backend& backend : Candidates()) {
    if (!TestDevice(backend).ops().TakesE4M3({.key_dim = kHeadDim, .value_dim = kHeadDim}))
      continue;
    EXPECT_EQ(bytes_of(backend), want) << backend.name;
  }
}

}  // namespace
}  // namespace troupe
