// The table of cases of every operation, run on every backend: against the reference, and against
// itself with the same tokens cut into other steps.
//
// Inputs are new in each run; TROUPE_TEST_SEED repeats one (each failure names its seed).
#include "kernels/ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/ops_test_cases.h"

namespace troupe {
namespace {

struct Case {
  std::string name;
  std::vector<Sequence> sequences;
  std::function<Outputs(const Run&)> run;
  bool cuts_round = false;  // the cut of a sequence into steps may change the rounding
  bool integers = false;    // for devices that have integer products
};

template <class Config>
Case Make(std::string name, std::vector<Sequence> sequences,
          Outputs (*runner)(const Config&, const Run&), Config config) {
  return {std::move(name), std::move(sequences),
          [runner, config](const Run& run) { return runner(config, run); }};
}

// One token; a prompt; a decode step of several sequences; and all at once, with prompts that begin
// in the middle of a page, at its edges, and one that fills pages exactly.
const std::vector<Sequence> kOneToken = {{0, 1}};
const std::vector<Sequence> kPrompt = {{0, 70}};
const std::vector<Sequence> kDecode = {{0, 1}, {63, 1}, {64, 1}, {301, 1}, {1030, 1}};
const std::vector<Sequence> kMixed = {{0, 33},  {37, 1},  {62, 5},  {128, 1}, {64, 64}, {255, 3},
                                      {256, 2}, {319, 1}, {700, 9}, {0, 1},   {511, 2}};
// Over several splits of the context, beside short ones.
const std::vector<Sequence> kLong = {{3000, 3}, {5, 1}, {2047, 2}, {1023, 1}, {1500, 17}};

constexpr Activation kGelu = {.kind = ActivationKind::kGeluTanh};
// gpt-oss' slope, and a limit that many random inputs pass.
constexpr Activation kClamped = {
    .kind = ActivationKind::kClampedSilu, .alpha = 1.702F, .limit = 2.5F};

std::vector<Case> RowCases() {
  return {
      Make("embed/bf16", kMixed, RunEmbed, EmbedCase{}),
      Make("embed/f32 odd", kDecode, RunEmbed,
           EmbedCase{.vocabulary = 7, .hidden = 37, .dtype = DType::kF32}),
      Make("embed/scaled", kDecode, RunEmbed, EmbedCase{.hidden = 70, .scale = 8.366F}),
      Make("embed/last tokens", kMixed, RunEmbed, EmbedCase{.hidden = 70, .last_tokens = true}),
      Make("rms_norm", kMixed, RunRmsNorm, RmsNormCase{}),
      Make("rms_norm/odd in place", kDecode, RunRmsNorm,
           RmsNormCase{.hidden = 67, .in_place = true}),
      Make("rms_norm/added", kMixed, RunRmsNorm, RmsNormCase{.hidden = 77, .accumulate = true}),
      Make("rms_norm/parts", kMixed, RunRmsNormParts, SquareSumsCase{}),
      Make("rms_norm/odd parts", kDecode, RunRmsNormParts, SquareSumsCase{.hidden = 67}),
      Make("square_sums", kMixed, RunSquareSums, SquareSumsCase{}),
      Make("square_sums/odd", kDecode, RunSquareSums, SquareSumsCase{.hidden = 67}),
      Make("row_add", kMixed, RunRowAdd, RowAddCase{}),
      Make("row_add/odd", kDecode, RunRowAdd, RowAddCase{.hidden = 67}),
      Make("swiglu", kMixed, RunSwiglu, SwigluCase{}),
      Make("swiglu/odd", kDecode, RunSwiglu, SwigluCase{.size = 35}),
      Make("swiglu/gate alone", kDecode, RunSwiglu, SwigluCase{.size = 35, .gate_alone = true}),
      Make("swiglu/gelu", kMixed, RunSwiglu, SwigluCase{.size = 83, .activation = kGelu}),
      Make("swiglu/clamped", kMixed, RunSwiglu, SwigluCase{.size = 83, .activation = kClamped}),
      {"page_copy", kOneToken, RunPageCopy},
  };
}

std::vector<Case> LinearCases() {
  return {
      Make("linear/f32", kMixed, RunLinear, LinearCase{.dtype = DType::kF32}),
      Make("linear/bf16 weights", kMixed, RunLinear, LinearCase{.accumulate = true}),
      Make("linear/bf16", kMixed, RunLinear, LinearCase{.precision = Precision::kBf16}),
      Make("linear/parts", kPrompt, RunLinear,
           LinearCase{
               .parts = {512, 128, 128, 8, 24}, .precision = Precision::kBf16, .accumulate = true}),
      Make("linear/odd f32", kDecode, RunLinear,
           LinearCase{.inputs = 67, .parts = {5, 1, 19}, .dtype = DType::kF32}),
      Make("linear/bias", kMixed, RunLinear,
           LinearCase{.inputs = 67, .parts = {70, 19}, .dtype = DType::kF32, .bias = true}),
      Make("linear/bias bf16", kPrompt, RunLinear,
           LinearCase{.parts = {96, 64, 3},
                      .precision = Precision::kBf16,
                      .accumulate = true,
                      .bias = true}),
      Make("linear/odd bf16", kMixed, RunLinear,
           LinearCase{.inputs = 33, .parts = {3, 50}, .precision = Precision::kBf16}),
      Make("linear/wide bf16", kMixed, RunLinear,
           LinearCase{.inputs = 2048, .parts = {640}, .precision = Precision::kBf16}),
      Make("linear/few rows", {{0, 16}}, RunLinear,
           LinearCase{.inputs = 1040,
                      .parts = {300, 8, 13},
                      .precision = Precision::kBf16,
                      .accumulate = true,
                      .bias = true}),
      Make("linear/few wide rows", kDecode, RunLinear,
           LinearCase{.inputs = 4096, .parts = {2048}, .precision = Precision::kBf16}),
      Make("linear/normed", kMixed, RunLinear,
           LinearCase{.inputs = 2048,
                      .parts = {640},
                      .precision = Precision::kBf16,
                      .accumulate = true,
                      .norm = true}),
      Make("linear/normed wide", kDecode, RunLinear,
           LinearCase{
               .inputs = 3072, .parts = {96, 32}, .precision = Precision::kBf16, .norm = true}),
      Make("linear/normed odd", kDecode, RunLinear,
           LinearCase{.inputs = 130, .parts = {19}, .precision = Precision::kBf16, .norm = true}),
      Make("linear/normed f32", kDecode, RunLinear,
           LinearCase{.inputs = 260, .parts = {24}, .dtype = DType::kF32, .norm = true}),
      Make("linear/one token", kOneToken, RunLinear,
           LinearCase{.inputs = 768, .parts = {256}, .precision = Precision::kBf16}),
  };
}

// Every format of codes, with products in both ways, and in experts.
std::vector<Case> CodedCases() {
  std::vector<Case> cases;
  for (const CodedFormat& format : CodedFormats()) {
    for (const Precision precision : {Precision::kF32, Precision::kBf16, Precision::kInt8Groups,
                                      Precision::kInt8Rows, Precision::kFp8Groups}) {
      if (RoundsToIntegers(precision) && !IsInteger(format.code)) continue;
      const bool fp8 = format.code == CodeFormat::kFp8E4M3 && format.group == kFp8Inputs;
      if (precision == Precision::kFp8Groups && !fp8) continue;
      const std::string name = format.name + " " + PrecisionName(precision);
      cases.push_back(Make("linear/" + name, kMixed, RunLinear,
                           LinearCase{.inputs = 328,
                                      .parts = {70, 19},
                                      .precision = precision,
                                      .accumulate = true,
                                      .bias = true,
                                      .codes = format}));
      cases.push_back(Make("moe_experts/" + name, kDecode, RunMoeExperts,
                           MoeExpertsCase{.hidden = 96,
                                          .size = 40,
                                          .experts = 6,
                                          .precision = precision,
                                          .bias = true,
                                          .codes = format}));
      for (size_t i = cases.size() - 2; i < cases.size(); ++i) {
        cases[i].integers = RoundsToIntegers(precision);
      }
    }
    if (!HasScales(format.code)) continue;
    cases.push_back(Make("linear/" + format.name + " long", kMixed, RunLinear,
                         LinearCase{.inputs = 2120,
                                    .parts = {40, 35},
                                    .precision = Precision::kBf16,
                                    .bias = true,
                                    .codes = format}));
    cases.push_back(Make("moe_experts/" + format.name + " many", kMixed, RunMoeExperts,
                         MoeExpertsCase{.hidden = 144,
                                        .size = 80,
                                        .experts = 4,
                                        .top_k = 3,
                                        .precision = Precision::kBf16,
                                        .codes = format}));
  }
  return cases;
}

// FP8 with FP8 in the sizes that GPUs' matrix units take, at the least and with parts and long
// rows.
std::vector<Case> Fp8Cases() {
  std::vector<Case> cases;
  for (const CodedFormat& format : CodedFormats()) {
    if (format.name != "fp8_block") continue;
    const LinearCase linear = {.precision = Precision::kFp8Groups, .codes = format};
    for (const auto& [name, inputs, parts] :
         {std::tuple<std::string, int, std::vector<int>>{"", 328, {192, 64}},
          {" long", 2120, {64, 128}},
          {" wide", 256, {320, 1024}}}) {
      LinearCase c = linear;
      c.inputs = inputs;
      c.parts = parts;
      cases.push_back(Make("linear/fp8 units" + name, kMixed, RunLinear, c));
      c.accumulate = c.bias = true;
      cases.push_back(Make("linear/fp8 units bias" + name, kPrompt, RunLinear, c));
    }
    const MoeExpertsCase experts = {.precision = Precision::kFp8Groups, .codes = format};
    for (const int size : {64, 192, 32}) {
      MoeExpertsCase c = experts;
      c.size = size;
      c.bias = size == 192;
      const std::string name = "moe_experts/fp8 units " + std::to_string(size);
      cases.push_back(Make(name, kMixed, RunMoeExperts, c));
      c.experts = 4;
      c.elsewhere = 20;
      c.accumulate = false;
      cases.push_back(Make(name + " popular", kMixed, RunMoeExperts, c));
    }
  }
  return cases;
}

std::vector<Case> SampleCases() {
  return {
      Make("sample/greedy", kMixed, RunSample, SampleCase{.greedy = true}),
      Make("sample/greedy ties", kMixed, RunSample, SampleCase{.greedy = true, .ties = true}),
      Make("sample/one token", kOneToken, RunSample, SampleCase{.vocabulary = 151936}),
      Make("sample/temperature", kDecode, RunSample, SampleCase{.vocabulary = 50257}),
      Make("sample/top k", kMixed, RunSample, SampleCase{.top_k = true}),
      Make("sample/top p", kMixed, RunSample, SampleCase{.top_p = true}),
      Make("sample/min p", kMixed, RunSample, SampleCase{.min_p = true}),
      Make("sample/all", kMixed, RunSample,
           SampleCase{.vocabulary = 1501, .top_k = true, .top_p = true, .min_p = true}),
      Make("sample/all flat", kDecode, RunSample,
           SampleCase{
               .vocabulary = 32000, .spread = 0.1F, .top_k = true, .top_p = true, .min_p = true}),
      Make("sample/all sharp", kMixed, RunSample,
           SampleCase{.vocabulary = 37, .spread = 40, .top_k = true, .top_p = true, .min_p = true}),
      Make("sample/all ties", kMixed, RunSample,
           SampleCase{.top_k = true, .top_p = true, .min_p = true, .ties = true}),
      Make("sample/tiny", kMixed, RunSample,
           SampleCase{.vocabulary = 2, .top_k = true, .top_p = true, .min_p = true}),
      Make("sample/damaged", kMixed, RunSample,
           SampleCase{.vocabulary = 300, .top_p = true, .damaged = true}),
  };
}

std::vector<Case> HeadCases() {
  return {
      Make("head_norm_rope/q", kMixed, RunHeadNormRope, HeadNormRopeCase{}),
      Make("head_norm_rope/far", {{65000, 3}, {1000000, 2}}, RunHeadNormRope, HeadNormRopeCase{}),
      Make("head_norm_rope/norm", kDecode, RunHeadNormRope,
           HeadNormRopeCase{.heads = 2, .rope = false}),
      Make("head_norm_rope/rope odd", kPrompt, RunHeadNormRope,
           HeadNormRopeCase{.heads = 3, .head_dim = 38, .norm = false}),
      Make("head_norm_rope/first dims", kMixed, RunHeadNormRope,
           HeadNormRopeCase{.heads = 3, .head_dim = 80, .rotated_dims = 22, .amplitude = 1.25F}),
      Make("head_norm_rope/last dims interleaved", kMixed, RunHeadNormRope,
           HeadNormRopeCase{.head_dim = 48,
                            .norm = false,
                            .first_rotated = 30,
                            .interleaved = true,
                            .amplitude = 0.75F}),
      Make("head_gate/all open", kMixed, RunHeadGate, HeadGateCase{.rules = {{0, 0}}}),
      Make("head_gate/mixed rules", kMixed, RunHeadGate,
           HeadGateCase{.rules = {{0.3F, 0}, {0, 0.2F}, {0.5F, 0}, {0.2F, 0.3F}}}),
      Make("head_gate/no branches", kDecode, RunHeadGate,
           HeadGateCase{.heads = 19, .branches = 0, .rules = {{0.3F, 0}, {0, 0.1F}}}),
  };
}

std::vector<Case> RouterCases() {
  return {
      Make("moe_route", kMixed, RunMoeRoute, MoeRouteCase{}),
      Make("moe_route/odd", kDecode, RunMoeRoute,
           MoeRouteCase{.experts = 7, .top_k = 5, .normalize = false}),
      Make("moe_route/softmax", kMixed, RunMoeRoute,
           MoeRouteCase{
               .experts = 19, .top_k = 4, .bias = false, .scoring = RouterScoring::kSoftmax}),
      Make("moe_route/best of groups", kMixed, RunMoeRoute,
           MoeRouteCase{.experts = 20,
                        .top_k = 3,
                        .normalize = false,
                        .bias = false,
                        .scoring = RouterScoring::kSoftmax,
                        .group_score = GroupScore::kMax,
                        .groups = 5,
                        .groups_chosen = 2}),
      Make("moe_route/best two of groups", kMixed, RunMoeRoute,
           MoeRouteCase{.experts = 32,
                        .top_k = 9,
                        .group_score = GroupScore::kTopTwoSum,
                        .groups = 8,
                        .groups_chosen = 3}),
      Make("moe_route/with router", kMixed, RunMoeRoute,
           MoeRouteCase{
               .experts = 128, .top_k = 8, .scoring = RouterScoring::kSoftmax, .inputs = 256}),
      Make("moe_route/with router f32", kDecode, RunMoeRoute,
           MoeRouteCase{.experts = 19, .top_k = 3, .inputs = 44, .router_dtype = DType::kF32}),
      Make("moe_route/with router uneven", kMixed, RunMoeRoute,
           MoeRouteCase{.experts = 40, .top_k = 6, .inputs = 1120}),
      Make("moe_route/with router normed", kMixed, RunMoeRoute,
           MoeRouteCase{.experts = 128,
                        .top_k = 8,
                        .scoring = RouterScoring::kSoftmax,
                        .inputs = 2048,
                        .norm = true}),
      Make("moe_route/with router normed short", kDecode, RunMoeRoute,
           MoeRouteCase{.experts = 24, .top_k = 3, .inputs = 256, .norm = true}),
      Make("moe_route/with router odd", kDecode, RunMoeRoute,
           MoeRouteCase{.experts = 7, .top_k = 2, .inputs = 37}),
  };
}

std::vector<Case> ExpertCases() {
  return {
      Make("moe_experts/f32", kMixed, RunMoeExperts, MoeExpertsCase{.dtype = DType::kF32}),
      Make("moe_experts/bf16", kMixed, RunMoeExperts,
           MoeExpertsCase{.precision = Precision::kBf16}),
      Make("moe_experts/normed", kMixed, RunMoeExperts,
           MoeExpertsCase{.hidden = 512,
                          .size = 128,
                          .shared = false,
                          .precision = Precision::kBf16,
                          .norm = true}),
      Make("moe_experts/normed shared", kDecode, RunMoeExperts,
           MoeExpertsCase{.hidden = 256, .size = 64, .precision = Precision::kBf16, .norm = true}),
      Make("moe_experts/decode", kDecode, RunMoeExperts,
           MoeExpertsCase{.precision = Precision::kBf16}),
      Make("moe_experts/many of one expert", {{0, 300}}, RunMoeExperts,
           MoeExpertsCase{.hidden = 144,
                          .size = 80,
                          .experts = 2,
                          .top_k = 1,
                          .shared = false,
                          .precision = Precision::kBf16,
                          .bias = true,
                          .accumulate = false}),
      Make("moe_experts/many tokens", {{0, 150}, {63, 170}, {5, 1}}, RunMoeExperts,
           MoeExpertsCase{.hidden = 320,
                          .size = 96,
                          .experts = 6,
                          .top_k = 3,
                          .precision = Precision::kBf16,
                          .activation = kClamped}),
      Make("moe_experts/16 tokens bias", {{0, 9}, {70, 7}}, RunMoeExperts,
           MoeExpertsCase{.hidden = 528,
                          .size = 272,
                          .experts = 9,
                          .top_k = 8,
                          .precision = Precision::kBf16,
                          .bias = true}),
      Make("moe_experts/bf16 odd", kMixed, RunMoeExperts,
           MoeExpertsCase{.hidden = 40, .size = 24, .precision = Precision::kBf16}),
      Make("moe_experts/odd", kDecode, RunMoeExperts,
           MoeExpertsCase{.hidden = 37, .size = 21, .experts = 5, .top_k = 3, .shared = false}),
      Make("moe_experts/bias clamped", kMixed, RunMoeExperts,
           MoeExpertsCase{.hidden = 37,
                          .size = 21,
                          .experts = 5,
                          .top_k = 3,
                          .shared = false,
                          .dtype = DType::kF32,
                          .activation = kClamped,
                          .bias = true}),
      Make("moe_assign", kMixed, RunMoeAssign, MoeAssignCase{}),
      Make("moe_assign/one copy", kDecode, RunMoeAssign,
           MoeAssignCase{.experts = 5, .top_k = 1, .most_copies = 1}),
      Make("moe_experts/some elsewhere", kMixed, RunMoeExperts, MoeExpertsCase{.elsewhere = 60}),
      Make("moe_experts/all elsewhere", kDecode, RunMoeExperts,
           MoeExpertsCase{.shared = false, .accumulate = false, .elsewhere = 100}),
      Make("moe_experts/gelu not added", kDecode, RunMoeExperts,
           MoeExpertsCase{.hidden = 40, .size = 24, .activation = kGelu, .accumulate = false}),
  };
}

std::vector<Case> AttentionCases() {
  return {
      Make("kv_write/bf16", kMixed, RunKvWrite, KvWriteCase{}),
      Make("kv_write/f32 odd", kMixed, RunKvWrite,
           KvWriteCase{.kv_heads = 3, .head_dim = 37, .dtype = DType::kF32}),
      Make("qkv_write/bf16", kMixed, RunQkvWrite, QkvWriteCase{}),
      Make("qkv_write/decode", kDecode, RunQkvWrite,
           QkvWriteCase{.heads = 32, .kv_heads = 4, .head_dim = 128}),
      Make("qkv_write/f32 some dims", kMixed, RunQkvWrite,
           QkvWriteCase{.heads = 3,
                        .kv_heads = 3,
                        .head_dim = 38,
                        .value_dim = 21,
                        .norm = false,
                        .rotated_dims = 10,
                        .interleaved = true,
                        .dtype = DType::kF32}),
      Make("qkv_write/no rope", kDecode, RunQkvWrite, QkvWriteCase{.rope = false}),
      Make("paged_attention/bf16", kMixed, RunPagedAttention, PagedAttentionCase{}),
      Make("paged_attention/f32", kMixed, RunPagedAttention,
           PagedAttentionCase{.dtype = DType::kF32, .accumulate = false}),
      Make("paged_attention/decode", kDecode, RunPagedAttention, PagedAttentionCase{.closed = 0}),
      Make("paged_attention/long", kLong, RunPagedAttention,
           PagedAttentionCase{.heads = 4, .kv_heads = 1, .closed = 0.1}),
      Make("paged_attention/sharp", kMixed, RunPagedAttention,
           PagedAttentionCase{.dtype = DType::kF32, .sharpness = 8}),
      Make("paged_attention/all closed", kMixed, RunPagedAttention,
           PagedAttentionCase{.closed = 1, .accumulate = false}),
      Make("paged_attention/mha odd", kMixed, RunPagedAttention,
           PagedAttentionCase{.heads = 3, .kv_heads = 3, .head_dim = 80}),
      Make("paged_attention/head of 8", kMixed, RunPagedAttention,
           PagedAttentionCase{.heads = 4, .head_dim = 8, .dtype = DType::kF32}),
      Make("paged_attention/head of 40", kLong, RunPagedAttention,
           PagedAttentionCase{.heads = 6, .kv_heads = 3, .head_dim = 40}),
      Make("paged_attention/odd head", kMixed, RunPagedAttention,
           PagedAttentionCase{.head_dim = 37, .window = 100, .accumulate = false}),
      Make("paged_attention/smaller values", kLong, RunPagedAttention,
           PagedAttentionCase{.head_dim = 48, .value_dim = 20}),
      Make("paged_attention/larger values", kMixed, RunPagedAttention,
           PagedAttentionCase{.head_dim = 24, .value_dim = 64, .dtype = DType::kF32}),
      Make("paged_attention/sinks", kLong, RunPagedAttention, PagedAttentionCase{.sinks = true}),
      Make("paged_attention/sinks in a window", kMixed, RunPagedAttention,
           PagedAttentionCase{.sinks = true, .window = 5, .dtype = DType::kF32}),
      Make("paged_attention/group of 7", kDecode, RunPagedAttention,
           PagedAttentionCase{.heads = 7, .kv_heads = 1, .head_dim = 16}),
      Make("paged_attention/window", kMixed, RunPagedAttention, PagedAttentionCase{.window = 256}),
      Make("paged_attention/window f32", kLong, RunPagedAttention,
           PagedAttentionCase{.window = 256, .dtype = DType::kF32}),
      Make("paged_attention/window of a page", kMixed, RunPagedAttention,
           PagedAttentionCase{.window = 64}),
      Make("paged_attention/odd window", kMixed, RunPagedAttention,
           PagedAttentionCase{.window = 37}),
      Make("paged_attention/window of one", kDecode, RunPagedAttention,
           PagedAttentionCase{.window = 1}),
  };
}

std::vector<Case> NsaCases() {
  const NsaCase small = {.sizes = {.compress_block = 32,
                                   .compress_stride = 16,
                                   .selected_blocks = 4,
                                   .initial_blocks = 1,
                                   .local_blocks = 2}};
  NsaCase f32 = small;
  f32.dtype = DType::kF32;
  NsaCase other = {.heads = 6,
                   .kv_heads = 3,
                   .head_dim = 48,
                   .sizes = {.compress_block = 16,
                             .compress_stride = 4,
                             .selected_blocks = 5,
                             .initial_blocks = 2,
                             .local_blocks = 1}};
  NsaCase ties = small;
  ties.equal_keys = true;
  NsaCase open = {.closed = 0};
  NsaCase large = small;
  large.head_dim = 128;
  large.kv_heads = 1;
  return {
      Make("nsa_compress/bf16", kMixed, RunNsaCompress, small),
      Make("nsa_compress/f32", kPrompt, RunNsaCompress, f32),
      Make("nsa_compress/large heads", {{0, 1100}, {500, 1}, {47, 1}, {30, 1}, {63, 2}},
           RunNsaCompress, large),
      Make("nsa_compress/other sizes", kDecode, RunNsaCompress, other),
      Make("nsa_select/bf16", kMixed, RunNsaSelect, small),
      Make("nsa_select/f32", kDecode, RunNsaSelect, f32),
      Make("nsa_select/long", {{18000, 2}, {16500, 1}, {40, 1}}, RunNsaSelect, open),
      Make("nsa_select/other sizes", kMixed, RunNsaSelect, other),
      Make("nsa_select/ties", kMixed, RunNsaSelect, ties),
      Make("nsa_attention/bf16", kMixed, RunNsaAttention, small),
      Make("nsa_attention/f32", kLong, RunNsaAttention, f32),
      Make("nsa_attention/prompt", kPrompt, RunNsaAttention, open),
      Make("nsa_attention/other sizes", kMixed, RunNsaAttention, other),
  };
}

std::vector<Case> MlaCases() {
  const std::vector<MlaForm> absorbed = {MlaForm::kAbsorbed};
  const std::vector<MlaForm> expanded = {MlaForm::kExpanded};
  const std::vector<MlaForm> both = {MlaForm::kExpanded, MlaForm::kAbsorbed, MlaForm::kAbsorbed};
  const MlaDims odd = {.heads = 5, .nope_dim = 11, .rope_dim = 6, .value_dim = 9, .latent_dim = 21};
  const MlaDims wide = {
      .heads = 2, .nope_dim = 64, .rope_dim = 32, .value_dim = 48, .latent_dim = 128};
  const MlaDims deepseek = {
      .heads = 2, .nope_dim = 128, .rope_dim = 64, .value_dim = 128, .latent_dim = 512};
  const MlaCase f32 = {.dtype = DType::kF32, .weight_dtype = DType::kF32};
  const auto with = [](MlaCase c, const std::vector<MlaForm>& forms) {
    c.forms = forms;
    return c;
  };
  std::vector<Case> cases = {
      Make("mla_attention/absorbed", kMixed, RunMlaAttention, MlaCase{.forms = absorbed}),
      Make("mla_attention/expanded", kMixed, RunMlaAttention, MlaCase{.forms = expanded}),
      Make("mla_attention/both", kMixed, RunMlaAttention, MlaCase{.forms = both}),
      Make("mla_attention/f32 absorbed", kMixed, RunMlaAttention, with(f32, absorbed)),
      Make("mla_attention/f32 expanded", kMixed, RunMlaAttention, with(f32, expanded)),
      Make("mla_attention/bf16 products absorbed", kDecode, RunMlaAttention,
           MlaCase{.precision = Precision::kBf16, .forms = absorbed}),
      Make("mla_attention/bf16 products expanded", kMixed, RunMlaAttention,
           MlaCase{.precision = Precision::kBf16, .forms = expanded}),
      Make("mla_attention/odd", kMixed, RunMlaAttention, MlaCase{.dims = odd, .forms = both}),
      Make("mla_attention/long", kLong, RunMlaAttention, MlaCase{.dims = wide, .forms = both}),
      Make("mla_attention/sizes of DeepSeek", {{0, 40}, {1060, 3}, {90, 1}}, RunMlaAttention,
           MlaCase{.dims = deepseek, .precision = Precision::kBf16, .forms = both}),
      Make("mla_attention/long of DeepSeek", {{4159, 2}, {70, 1}}, RunMlaAttention,
           MlaCase{.dims = deepseek, .precision = Precision::kBf16, .forms = absorbed}),
      Make("mla_attention/sharp", kDecode, RunMlaAttention,
           MlaCase{.dims = wide, .dtype = DType::kF32, .forms = both, .sharpness = 8}),
      Make("mla_attention/chosen", kMixed, RunMlaAttention, MlaCase{}),
      Make("mla_attention/chosen f32", kLong, RunMlaAttention, with(f32, {})),
  };
  for (Case& c : cases) c.cuts_round = c.name.find("chosen") != std::string::npos;
  return cases;
}

const std::vector<Case>& Cases() {
  static const auto& cases = *new std::vector<Case>([] {
    std::vector<Case> all;
    for (const auto& group :
         {RowCases(), LinearCases(), CodedCases(), Fp8Cases(), HeadCases(), RouterCases(),
          ExpertCases(), AttentionCases(), NsaCases(), MlaCases(), SampleCases()}) {
      all.insert(all.end(), group.begin(), group.end());
    }
    return all;
  }());
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
  const auto found = known.find(c.name);
  if (found != known.end()) return found->second;
  return known[c.name] = RunOn(ReferenceBackend(), c, InOneStep(c.sequences));
}

void ExpectNear(const Output& got, const Output& want) {
  if (want.only_between_runs) return;
  ASSERT_EQ(got.values.size(), want.values.size()) << want.name;
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < want.values.size(); ++i) {
    const double error =
        std::abs(double{got.values[i]} - want.values[i]) / std::max(1.0F, std::abs(want.values[i]));
    if (!(error <= worst)) {
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
      where = i;
    }
  }
  EXPECT_LE(worst, std::max(got.tolerance, want.tolerance))
      << want.name << "[" << where << "]: " << got.values[where] << ", reference "
      << want.values[where];
}

void ExpectSameBits(const Outputs& got, const Outputs& want, const std::string& what) {
  for (size_t o = 0; o < want.size(); ++o) {
    ASSERT_EQ(got[o].values.size(), want[o].values.size());
    for (size_t i = 0; i < want[o].values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[o].values[i]),
                std::bit_cast<uint32_t>(want[o].values[i]))
          << want[o].name << "[" << i << "] " << what << ": " << got[o].values[i]
          << ", all at once " << want[o].values[i];
    }
  }
}

class OpsTest : public testing::TestWithParam<std::tuple<size_t, size_t>> {
 protected:
  const Backend& backend() const { return Candidates()[std::get<0>(GetParam())]; }
  bool Skips() const {
    return test_case().integers && !TestDevice(backend()).ops().HasIntegerProducts();
  }
  const Case& test_case() const { return Cases()[std::get<1>(GetParam())]; }

  testing::ScopedTrace trace_{__FILE__, __LINE__, absl::StrCat("TROUPE_TEST_SEED=", Seed())};
};

TEST_P(OpsTest, AgreesWithTheReference) {
  if (Skips()) GTEST_SKIP() << "this device has no integer products";
  const Outputs& want = Expected(test_case());
  const Outputs got = RunOn(backend(), test_case(), InOneStep(test_case().sequences));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ExpectNear(got[i], want[i]);
}

TEST_P(OpsTest, TokensDoNotDependOnTheirSteps) {
  if (Skips()) GTEST_SKIP() << "this device has no integer products";
  const Case& c = test_case();
  TestRandom random(Seed());
  const Outputs want = RunOn(backend(), c, InOneStep(c.sequences));
  ExpectSameBits(RunOn(backend(), c, EachAlone(c.sequences)), want, "each sequence alone");
  const Outputs by_token = RunOn(backend(), c, TokenByToken(c.sequences));
  const Outputs cut = RunOn(backend(), c, RandomlyCut(c.sequences, random));
  if (c.cuts_round) {
    for (size_t i = 0; i < want.size(); ++i) ExpectNear(by_token[i], want[i]);
    for (size_t i = 0; i < want.size(); ++i) ExpectNear(cut[i], want[i]);
  } else {
    ExpectSameBits(by_token, want, "token by token");
    ExpectSameBits(cut, want, "cut at random");
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpsTest,
                         testing::Combine(testing::Range<size_t>(0, Candidates().size()),
                                          testing::Range<size_t>(0, Cases().size())),
                         [](const auto& info) {
                           return absl::StrReplaceAll(
                               absl::StrCat(Candidates()[std::get<0>(info.param)].name, "_",
                                            Cases()[std::get<1>(info.param)].name),
                               {{"/", "_"}, {" ", "_"}});
                         });

TEST(CudaTest, IsAmongTheBackends) {
  const absl::Status missing = CudaMissing();
  if (!missing.ok()) GTEST_SKIP() << "not tested on a GPU: " << missing;
}

// ---- The two forms of latent attention agree ----

class MlaFormsTest : public testing::TestWithParam<size_t> {};

TEST_P(MlaFormsTest, DifferByRoundingAlone) {
  const testing::ScopedTrace trace(__FILE__, __LINE__, absl::StrCat("TROUPE_TEST_SEED=", Seed()));
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    MlaCase c = {
        .dims = {.heads = 3, .nope_dim = 32, .rope_dim = 16, .value_dim = 24, .latent_dim = 96},
        .dtype = dtype,
        .weight_dtype = DType::kF32};
    std::vector<Outputs> got;
    for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
      c.forms = {form};
      got.push_back(
          RunOn(Candidates()[GetParam()], Make("", kLong, RunMlaAttention, c), InOneStep(kLong)));
    }
    ExpectNear(got[1][0], got[0][0]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MlaFormsTest, testing::Range<size_t>(0, Candidates().size()),
                         [](const auto& info) { return Candidates()[info.param].name; });

// ---- NSA decode touches what it selects, and nothing else ----

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
  TestRandom random(Seed());
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
  const testing::ScopedTrace trace(__FILE__, __LINE__, absl::StrCat("TROUPE_TEST_SEED=", Seed()));
  const Backend& backend = Candidates()[GetParam()];
  const NsaCase c;
  const uint32_t slot = 1;
  TestRandom random(Seed() + 1);
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
