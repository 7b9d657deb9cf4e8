// The table's cases of dense tensors: rows, products, experts, heads and sampling.
#include <string>
#include <tuple>
#include <vector>

#include "kernels/ops_test_table.h"

namespace troupe {
namespace {

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
      Make("moe_route/with router many tokens", {{0, 150}, {3, 20}}, RunMoeRoute,
           MoeRouteCase{
               .experts = 96, .top_k = 8, .scoring = RouterScoring::kSoftmax, .inputs = 256}),
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

}  // namespace

std::vector<Case> DenseCases() {
  return Joined({RowCases(), LinearCases(), CodedCases(), Fp8Cases(), HeadCases(), RouterCases(),
                 ExpertCases(), SampleCases()});
}

}  // namespace troupe
