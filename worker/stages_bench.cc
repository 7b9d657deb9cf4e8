// What cutting a step gains where a replica has stages: two ranks of the bundled model with a
// thread each, in one process, a step of so many prompt tokens in so many parts. Wall time, for it
// is the overlap that is measured: the machine must have two idle cores.

#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/device.h"
#include "model/checkpoint.h"
#include "sharding/layout_rules.h"
#include "worker/testing/replica_harness.h"

namespace troupe {
namespace {

void TwoStages(benchmark::State& state) {
  const auto tokens = static_cast<int>(state.range(0));
  static const auto checkpoint = Checkpoint::Open(SourcePath("models/abacus"));
  CHECK_OK(checkpoint.status());
  RunnerHarness::Options runner;
  runner.mode = ComputeMode::kBf16;
  runner.micro_batches = static_cast<int>(state.range(1));
  runner.poison = false;
  const auto replica =
      ReplicaHarness::Create(*checkpoint, [] { return MakeOps("cpu", {.threads = 1}); },
                             {.runner = runner, .layout = *ParseLayout("pp2")});
  CHECK_OK(replica.status());
  std::vector<RunnerHarness::Row> rows;
  for (uint32_t slot = 0; slot < 4; ++slot) {
    rows.push_back({.slot = slot, .tokens = RandomTokens(tokens / 4, slot)});
  }
  (*replica)->Step(rows);
  for (auto _ : state) {
    state.PauseTiming();
    for (uint32_t slot = 0; slot < 4; ++slot) (*replica)->Finish(slot);
    state.ResumeTiming();
    (*replica)->Step(rows);
  }
  state.counters["tokens_per_s"] = benchmark::Counter(
      static_cast<double>(tokens), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(TwoStages)
    ->ArgNames({"tokens", "parts"})
    ->ArgsProduct({{4, 64, 256, 512}, {1, 2, 3, 4, 6, 8}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace troupe
