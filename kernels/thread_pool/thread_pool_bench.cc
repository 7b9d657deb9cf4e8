// What a fork and a join cost, with bodies that do nothing.
#include "benchmark/benchmark.h"
#include "kernels/thread_pool/thread_pool.h"

namespace troupe {
namespace {

void BM_ForkJoin(benchmark::State& state) {
  ThreadPool pool(ThreadPool::Config{.threads = static_cast<int>(state.range(0))});
  for (auto _ : state) {
    pool.ParallelFor(pool.threads(), 1, [](WorkRange range) { benchmark::DoNotOptimize(range); });
  }
}
BENCHMARK(BM_ForkJoin)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
}  // namespace troupe
