// Decode and prefill of the bundled model, without scheduler, sampler or network.
//
//     model_runner_bench --benchmark_filter=Decode/bf16
//
// Decode: every sequence has its own pages. tok/s is over all sequences; bytes count what a step
// has to read and write once, weights of chosen experts and keys and values of open heads only.
// Prefill: steps of 512 tokens, shared equally by the sequences of the batch. GFLOP/s count
// products with weights, not attention. Shares are of what the machine does at best, measured in
// the same run (kernels/bench_util.h).
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "benchmark/benchmark.h"
#include "kernels/bench_util.h"
#include "model/safetensors.h"
#include "worker/testing/runner_harness.h"

namespace troupe {
namespace {

constexpr int kDecodeSteps = 64;
constexpr int kChunk = 512;

// Real text, so that gates, experts and blocks are those of real use: a prompt over and over.
std::vector<uint32_t> Text(size_t count) {
  auto file = SafetensorsFile::Open(SourcePath("tests/golden/abacus/needle_3000.safetensors"));
  CHECK_OK(file.status());
  std::vector<uint32_t> text;
  for (const TensorView& view : (*file)->tensors()) {
    if (view.name != "input_ids") continue;
    const auto* ids = reinterpret_cast<const int64_t*>(view.bytes.data());
    text.assign(ids, ids + view.elements());
  }
  CHECK(!text.empty());
  std::vector<uint32_t> tokens;
  while (tokens.size() < count) tokens.push_back(text[tokens.size() % text.size()]);
  return tokens;
}

// Adds up the bytes that one step must move.
class TrafficCounter : public RunnerTap {
 public:
  explicit TrafficCounter(RunnerHarness* harness) : harness_(harness) {
    bytes_ = harness->model().lm_head->bytes();
  }

  void OnGates(int layer, const Tensor& gates) override {
    const LoadedLayer& loaded = harness_->model().layers[layer];
    const AttentionDescription& attention = loaded.description.attention;
    bytes_ += loaded.attention.in->bytes() + loaded.attention.out->bytes() +
              loaded.attention.head_gate_up->bytes();
    const int group_heads = attention.heads / attention.kv_heads;
    for (int64_t t = 0; t < gates.rows; ++t) {
      const int64_t visible = harness_->last_input().batch().position[t] + 1;
      AddKeys(attention, attention.kv_heads * (loaded.attention.nsa.has_value() ? 3 : 1));
      for (int g = 0; g < attention.kv_heads; ++g) {
        const float* first = gates.f32(t) + static_cast<int64_t>(g) * group_heads;
        if (*std::max_element(first, first + group_heads) < threshold_) continue;
        AddKeys(attention, std::min<int64_t>(visible, attention.window_tokens));
        if (loaded.attention.nsa.has_value()) {
          AddKeys(attention, CompressedEntries(*attention.nsa, visible));
          AddKeys(attention,
                  std::min<int64_t>(visible, attention.nsa->selected_blocks * kBlockTokens));
        }
      }
    }
    if (const auto* dense = std::get_if<LoadedSwiglu>(&loaded.ffn)) {
      bytes_ += dense->gate_up->bytes() + dense->down->bytes();
    }
  }

  void OnExperts(int layer, absl::Span<const int32_t> experts,
                 absl::Span<const float> /*weights*/) override {
    const auto& moe = std::get<LoadedMoe>(harness_->model().layers[layer].ffn);
    std::vector<int32_t> touched(experts.begin(), experts.end());
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    const auto add = [&](const ExpertWeights& expert) {
      bytes_ += expert.gate_up->bytes() + expert.down->bytes();
    };
    for (const int32_t expert : touched) add(moe.experts[expert]);
    if (moe.shared.has_value()) add(*moe.shared);
    bytes_ += moe.router->bytes();
  }

  void set_threshold(float threshold) { threshold_ = threshold; }
  int64_t bytes() const { return bytes_; }

 private:
  // Keys and values of one KV head.
  void AddKeys(const AttentionDescription& attention, int64_t entries) {
    bytes_ += 2 * entries * attention.head_dim * BytesOf(harness_->pages().dtype());
  }

  RunnerHarness* harness_;
  float threshold_ = 0;
  int64_t bytes_ = 0;
};

// Of all products with weights, one token through every layer; logits apart.
int64_t FlopsPerToken(const LoadedModel& model) {
  int64_t flops = 0;
  const auto add = [&](const PackedMatrix& w) { flops += 2 * w.outputs() * w.inputs(); };
  const auto add_expert = [&](const ExpertWeights& expert) {
    add(*expert.gate_up);
    add(*expert.down);
  };
  for (const LoadedLayer& layer : model.layers) {
    add(*layer.attention.in);
    add(*layer.attention.head_gate_up);
    add(*layer.attention.out);
    if (const auto* moe = std::get_if<LoadedMoe>(&layer.ffn)) {
      add(*moe->router);
      const int top_k = std::get<MoeFfn>(layer.description.ffn).experts_per_token;
      for (int e = 0; e < top_k; ++e) add_expert(moe->experts[e]);
      if (moe->shared.has_value()) add_expert(*moe->shared);
    } else {
      add_expert(std::get<LoadedSwiglu>(layer.ffn).view());
    }
  }
  return flops;
}

int64_t LogitFlops(const LoadedModel& model) {
  return 2 * model.lm_head->outputs() * model.lm_head->inputs();
}

Precision PrecisionOf(ComputeMode mode) {
  return mode == ComputeMode::kF32 ? Precision::kF32 : Precision::kBf16;
}

// The sequences of the last configuration, kept while only the threshold changes.
struct Scene {
  ComputeMode mode = ComputeMode::kF32;
  int batch = 0;
  int context = 0;
  std::unique_ptr<RunnerHarness> harness;

  static RunnerHarness& Get(ComputeMode mode, int batch, int context) {
    static Scene scene;
    if (scene.harness != nullptr && scene.mode == mode && scene.batch == batch &&
        scene.context == context) {
      return *scene.harness;
    }
    scene = {mode, batch, context, nullptr};
    RunnerHarness::Options options;
    options.mode = mode;
    options.slots = batch;
    options.max_context_tokens = std::max(context, kChunk) + 8 * kDecodeSteps;
    options.max_step_tokens = kChunk;
    options.poison = false;
    scene.harness = std::make_unique<RunnerHarness>(options);
    return *scene.harness;
  }
};

RunnerHarness::Row DecodeRow(uint32_t slot, uint32_t token, float threshold) {
  RunnerHarness::Row row;
  row.slot = slot;
  row.tokens = {token};
  row.gate = {threshold, 0};
  return row;
}

void Decode(benchmark::State& state, ComputeMode mode) {
  const auto batch = static_cast<int>(state.range(0));
  const auto context = static_cast<int>(state.range(1));
  const float threshold = static_cast<float>(state.range(2)) / 10;
  RunnerHarness& harness = Scene::Get(mode, batch, context);
  const std::vector<uint32_t> text = Text(context + 8 * kDecodeSteps);
  if (harness.length(0) == 0) {
    harness.Feed(0, {text.begin(), text.begin() + context}, kChunk);
    for (int slot = 1; slot < batch; ++slot) harness.Fork(0, slot, /*share=*/false);
  }
  int64_t closed = 0;
  const auto step = [&] {
    std::vector<RunnerHarness::Row> rows;
    for (int slot = 0; slot < batch; ++slot) {
      rows.push_back(DecodeRow(slot, text[harness.length(slot)], threshold));
    }
    for (const int32_t heads : harness.Step(rows).heads_closed) closed += heads;
  };
  TrafficCounter traffic(&harness);
  traffic.set_threshold(threshold);
  harness.runner().SetTap(&traffic);
  step();
  harness.runner().SetTap(nullptr);
  closed = 0;
  for (auto _ : state) step();

  const auto steps = static_cast<double>(state.iterations());
  state.counters["tok/s"] = benchmark::Counter(steps * batch, benchmark::Counter::kIsRate);
  state.counters["closed%"] =
      100.0 * static_cast<double>(closed) / (steps * batch * harness.model().gated_heads());
  const int64_t flops = batch * (FlopsPerToken(harness.model()) + LogitFlops(harness.model()));
  Report(state, {traffic.bytes(), traffic.bytes(), flops, PrecisionOf(mode)});
}

// Prefills `text` in every slot at once, each with an equal share of a step's tokens.
void PrefillTogether(RunnerHarness& harness, int batch, const std::vector<uint32_t>& text,
                     const GateRule& gate) {
  const size_t share = kChunk / batch;
  for (size_t begin = 0; begin < text.size(); begin += share) {
    const size_t end = std::min(begin + share, text.size());
    std::vector<RunnerHarness::Row> rows(batch);
    for (int slot = 0; slot < batch; ++slot) {
      rows[slot].slot = slot;
      rows[slot].tokens = {text.begin() + begin, text.begin() + end};
      rows[slot].logits = end == text.size() ? 1 : 0;
      rows[slot].gate = gate;
    }
    harness.Step(rows);
  }
}

void Prefill(benchmark::State& state, ComputeMode mode) {
  const auto batch = static_cast<int>(state.range(0));
  const auto context = static_cast<int>(state.range(1));
  RunnerHarness& harness = Scene::Get(mode, batch, context);
  const GateRule gate{static_cast<float>(state.range(2)) / 10, 0};
  const std::vector<uint32_t> text = Text(context);
  const auto finish = [&] {
    for (int slot = 0; slot < batch; ++slot) harness.Finish(slot);
  };
  for (auto _ : state) {
    state.PauseTiming();
    finish();
    state.ResumeTiming();
    PrefillTogether(harness, batch, text, gate);
  }
  finish();
  const int64_t tokens = int64_t{batch} * context;
  state.counters["tok/s"] = benchmark::Counter(static_cast<double>(state.iterations() * tokens),
                                               benchmark::Counter::kIsRate);
  const int64_t weights = harness.model().weight_bytes * ((tokens + kChunk - 1) / kChunk);
  const int64_t flops =
      tokens * FlopsPerToken(harness.model()) + batch * LogitFlops(harness.model());
  Report(state, {weights, harness.model().weight_bytes, flops, PrecisionOf(mode)});
}

const bool kRegistered = [] {
  for (const ComputeMode mode : {ComputeMode::kF32, ComputeMode::kBf16}) {
    const std::string name = mode == ComputeMode::kF32 ? "f32" : "bf16";
    benchmark::RegisterBenchmark(("Decode/" + name).c_str(), Decode, mode)
        ->ArgNames({"batch", "context", "threshold/10"})
        ->ArgsProduct({{1, 8, 32}, {128, 1024, 16384}, {0, 3, 5}})
        ->Iterations(kDecodeSteps)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("Prefill/" + name).c_str(), Prefill, mode)
        ->ArgNames({"batch", "tokens", "threshold/10"})
        ->ArgsProduct({{1, 8, 32}, {512, 4096}, {0, 3, 5}})
        ->ArgsProduct({{1}, {16384}, {0, 3, 5}})
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace troupe
