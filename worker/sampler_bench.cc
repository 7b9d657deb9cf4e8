// Time to sample one token: greedy, plain temperature, and truncated, for small and large
// vocabularies. Bytes are those of the logits.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/check.h"
#include "worker/sampler.h"

namespace troupe {
namespace {

void Run(benchmark::State& state, const SamplingParams& params) {
  const auto vocabulary = static_cast<size_t>(state.range(0));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  TokenCounts counts;
  for (uint32_t token = 0; token < 200; ++token) counts.AddOutput(token);
  std::vector<float> scratch_logits(vocabulary);
  SamplerScratch scratch;
  uint64_t index = 0;
  for (auto _ : state) {
    std::copy(logits.begin(), logits.end(), scratch_logits.begin());
    const auto sampled = Sample(params, &counts, index++, absl::MakeSpan(scratch_logits), scratch);
    CHECK_OK(sampled);
    benchmark::DoNotOptimize(sampled->token);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * vocabulary * sizeof(float)));
}

BENCHMARK_CAPTURE(Run, Greedy, SamplingParams{})->Arg(512)->Arg(131072);
BENCHMARK_CAPTURE(Run, Temperature, SamplingParams{.temperature = 0.8F})->Arg(512)->Arg(131072);
BENCHMARK_CAPTURE(Run, TopK50TopP95,
                  SamplingParams{.temperature = 0.8F, .top_k = 50, .top_p = 0.95F})
    ->Arg(512)
    ->Arg(131072);
BENCHMARK_CAPTURE(Run, TopP95, SamplingParams{.temperature = 0.8F, .top_p = 0.95F})
    ->Arg(512)
    ->Arg(131072);
BENCHMARK_CAPTURE(Run, Penalties, SamplingParams{.repetition_penalty = 1.1F})
    ->Arg(512)
    ->Arg(131072);
BENCHMARK_CAPTURE(Run, Logprobs, SamplingParams{.logprobs = 20})->Arg(512)->Arg(131072);

}  // namespace
}  // namespace troupe
