#include "kernels/bench_util.h"

#include <cstdlib>
#include <map>
#include <string>

#include "base/check.h"
#include "kernels/ceiling/ceiling.h"
#include "kernels/thread_pool/thread_pool.h"

namespace troupe {
namespace {

CpuOpsOptions OptionsFromEnvironment() {
  CpuOpsOptions options;
  const auto best = DetectCpuIsa();
  CHECK_OK(best);
  options.isa = *best;
  if (const char* threads = std::getenv("TROUPE_BENCH_THREADS")) {
    options.threads = std::atoi(threads);
  }
  if (const char* isa = std::getenv("TROUPE_BENCH_ISA")) {
    for (int i = 0; i < kCpuIsaCount; ++i) {
      if (std::string(isa) == CpuIsaName(CpuIsa(i))) options.isa = CpuIsa(i);
    }
  }
  return options;
}

const CpuOpsOptions& Options() {
  static const CpuOpsOptions options = OptionsFromEnvironment();
  return options;
}

// Measured when first asked for; a pool for each measurement, so that no thread of it lives on.
double CopyGbps(int64_t working_set_bytes) {
  static std::map<int64_t, double> measured;
  int64_t power_of_2 = 1 << 16;
  while (power_of_2 < working_set_bytes) power_of_2 *= 2;
  const auto [entry, is_new] = measured.try_emplace(power_of_2, 0);
  if (is_new) {
    ThreadPool pool(ThreadPool::Config{.threads = Options().threads});
    entry->second = MeasureCopyGbps(power_of_2, pool);
  }
  return entry->second;
}

double ReadGbps(int64_t working_set_bytes) {
  static std::map<int64_t, double> measured;
  int64_t power_of_2 = 1 << 16;
  while (power_of_2 < working_set_bytes) power_of_2 *= 2;
  const auto [entry, is_new] = measured.try_emplace(power_of_2, 0);
  if (is_new) {
    ThreadPool pool(ThreadPool::Config{.threads = Options().threads});
    entry->second = MeasureReadGbps(power_of_2, Options().isa, pool);
  }
  return entry->second;
}

double PeakGflops(Precision precision) {
  static std::map<Precision, double> measured;
  const auto [entry, is_new] = measured.try_emplace(precision, 0);
  if (is_new) {
    ThreadPool pool(ThreadPool::Config{.threads = Options().threads});
    entry->second = MeasurePeakGflops(precision, Options().isa, pool);
  }
  return entry->second;
}

}  // namespace

Ops& BenchOps() {
  static Ops& ops = *MakeCpuOps(Options()).release();
  return ops;
}

void Report(benchmark::State& state, const BenchWork& work) {
  using benchmark::Counter;
  const double iterations = static_cast<double>(state.iterations());
  const auto share_of_rate = [&](int64_t amount, double ceiling) {
    return Counter(static_cast<double>(amount) * iterations / ceiling / 1e9 * 100,
                   Counter::kIsRate);
  };
  const auto rate = [&](int64_t amount) {
    return Counter(static_cast<double>(amount) * iterations / 1e9, Counter::kIsRate);
  };
  state.counters["bytes"] = static_cast<double>(work.bytes);
  state.counters["GB/s"] = rate(work.bytes);
  state.counters["copy%"] = share_of_rate(work.bytes, CopyGbps(work.working_set_bytes));
  state.counters["read%"] = share_of_rate(work.bytes, ReadGbps(work.working_set_bytes));
  if (work.flops > 0) {
    state.counters["GFLOP/s"] = rate(work.flops);
    state.counters["peak%"] = share_of_rate(work.flops, PeakGflops(work.precision));
  }
}

}  // namespace troupe
