#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/device_bench.h"

namespace troupe {
namespace {

// The product with each of `weights` in turn: more than fits in any cache.
void TimeProducts(Bench& bench, const std::string& name,
                  const std::vector<const PackedMatrix*>& weights,
                  const std::vector<int64_t>& rows) {
  const int64_t outputs = weights[0]->outputs();
  const int64_t inputs = weights[0]->inputs();
  const int64_t most = *std::max_element(rows.begin(), rows.end());
  Tensor x = bench.Random(most, inputs, DType::kF32);
  Tensor out = bench.Random(most, outputs, DType::kF32);
  std::vector<float> first_row;
  for (const int64_t count : rows) {
    x.rows = out.rows = count;
    bench.ops().Linear({.x = x, .w = weights[0], .out = out});
    const std::vector<float> row = bench.FirstRow(out);
    if (first_row.empty()) first_row = row;
    if (row != first_row) std::printf("row 0 has other bits with %d rows:\n", int(count));
    bench.Time(
        absl::StrCat("linear ", name, " ", count, " rows"),
        weights[0]->bytes() + count * (inputs + outputs) * 4, 2 * count * outputs * inputs,
        [&](int i) { bench.ops().Linear({.x = x, .w = weights[i % weights.size()], .out = out}); },
        static_cast<int>(weights.size()));
  }
}

// Of how many matrices `bytes` long calls take turns with.
int64_t MatricesOf(int64_t bytes) { return std::clamp<int64_t>(200 * kMib / bytes + 1, 1, 24); }

void TimeLinear(Bench& bench, const std::string& name, int64_t outputs, int64_t inputs,
                Precision precision, const std::vector<int64_t>& rows) {
  if (!bench.Wants("linear " + name)) return;
  std::vector<const PackedMatrix*> weights;
  for (int64_t i = 0; i < MatricesOf(outputs * inputs * 2); ++i) {
    weights.push_back(bench.Weights(outputs, inputs, precision));
  }
  TimeProducts(bench, name, weights, rows);
  bench.Forget();
}

// The matrices of a layer of Qwen3-8B as codes.
void TimeCodes(Bench& bench, const std::vector<int64_t>& rows) {
  using enum CodeFormat;
  const CodedFormat formats[] = {{"int4-g64", kInt4, 64, ScaleFormat::kBf16},
                                 {"int4-g32", kInt4, 32, ScaleFormat::kBf16},
                                 {"int4-g128 f16", kInt4, 128, ScaleFormat::kF16},
                                 {"int8", kInt8, int64_t{1} << 20, ScaleFormat::kBf16},
                                 {"fp8", kFp8E4M3, 128, ScaleFormat::kF32},
                                 {"mxfp4", kFp4E2M1, 32, ScaleFormat::kE8M0}};
  const int64_t shapes[][2] = {
      {24576, 4096}, {12288, 4096}, {4096, 12288}, {6144, 4096}, {4096, 4096}};
  for (const CodedFormat& format : formats) {
    for (const auto& [outputs, inputs] : shapes) {
      const std::string name = absl::StrCat(format.name, " ", outputs, " x ", inputs);
      if (!bench.Wants("linear " + name)) continue;
      std::vector<const PackedMatrix*> weights = {bench.Codes(format, outputs, inputs)};
      const int64_t count = MatricesOf(weights[0]->bytes());
      while (static_cast<int64_t>(weights.size()) < count) {
        weights.push_back(bench.Codes(format, outputs, inputs));
      }
      TimeProducts(bench, name, weights, rows);
      bench.Forget();
    }
  }
}

void TimeExperts(Bench& bench, const std::vector<int64_t>& tokens) {
  if (!bench.Wants("moe_experts")) return;
  constexpr int kExperts = 128;
  constexpr int kTopK = 8;
  constexpr int64_t kHidden = 2048;
  constexpr int64_t kSize = 768;
  std::vector<ExpertWeights> experts(kExperts);
  for (ExpertWeights& expert : experts) {
    expert.gate_up = bench.Weights(2 * kSize, kHidden, Precision::kBf16);
    expert.down = bench.Weights(kHidden, kSize, Precision::kBf16);
  }
  const auto list = bench.ops().ListExperts(experts);
  const int64_t expert_bytes = 3 * kSize * kHidden * 2;
  std::mt19937 random(2);
  for (const int64_t count : tokens) {
    std::vector<int32_t> order(kExperts);
    for (int e = 0; e < kExperts; ++e) order[e] = e;
    std::vector<int32_t> chosen;
    std::vector<bool> used(kExperts, false);
    for (int64_t token = 0; token < count; ++token) {
      std::shuffle(order.begin(), order.end(), random);
      for (int k = 0; k < kTopK; ++k) {
        chosen.push_back(order[k]);
        used[order[k]] = true;
      }
    }
    const int64_t active = std::count(used.begin(), used.end(), true);
    const MoeExpertsParams params = {
        .x = bench.Random(count, kHidden, DType::kF32),
        .experts = list.get(),
        .top_k = kTopK,
        .chosen = bench.Put(chosen),
        .weights = bench.Put(std::vector<float>(count * kTopK, 0.125F)),
        .out = bench.Random(count, kHidden, DType::kF32),
        .accumulate = false};
    bench.Time(absl::StrCat("moe_experts ", count, " tokens, ", active, " experts"),
               active * expert_bytes + count * kHidden * 8, 2 * count * kTopK * 3 * kSize * kHidden,
               [&](int) { bench.ops().MoeExperts(params); });
  }
}

}  // namespace

void BenchProducts(Bench& bench) {
  using enum Precision;
  const std::vector<int64_t> rows = {1, 8, 32, 128, 256, 2048};
  TimeLinear(bench, "8192 x 8192", 8192, 8192, kBf16, {8192});
  TimeLinear(bench, "qkv 5120 x 2048", 5120, 2048, kBf16, rows);
  TimeLinear(bench, "out 2048 x 4096", 2048, 4096, kBf16, rows);
  TimeLinear(bench, "router 128 x 2048 f32", 128, 2048, kF32, rows);
  TimeLinear(bench, "logits 151936 x 2048", 151936, 2048, kBf16, {1, 32, 256});
  TimeCodes(bench, {1, 4, 8, 16, 32, 64, 256, 2048});
  TimeExperts(bench, {1, 8, 32, 128, 256, 2048, 4096});
}

}  // namespace troupe
