#include "kernels/ceiling/ceiling.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "base/check.h"
#include "kernels/ceiling/ceiling_kernel.h"
#include "kernels/host_memory.h"

namespace troupe {
namespace {

constexpr double kMeasureNs = 100e6;

// Nanoseconds of the fastest of many runs of `work`.
double FastestNs(absl::FunctionRef<void()> work) {
  using Clock = std::chrono::steady_clock;
  work();
  double fastest = 1e18;
  double total = 0;
  while (total < kMeasureNs) {
    const Clock::time_point start = Clock::now();
    work();
    const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    fastest = std::min(fastest, ns);
    total += ns;
  }
  return fastest;
}

// Chunks that are a multiple of what ReadFloats reads at once.
constexpr int64_t kChunkBytes = 64 * 1024;

}  // namespace

double MeasureCopyGbps(int64_t working_set_bytes, ThreadPool& pool) {
  const int64_t chunks = std::max<int64_t>(working_set_bytes / 2 / kChunkBytes, pool.threads());
  const int64_t bytes = chunks * kChunkBytes;
  const auto from = AllocateHostMemory(bytes);
  const auto to = AllocateHostMemory(bytes);
  CHECK_OK(from);
  CHECK_OK(to);
  // Pages that were never written share one page of zeros.
  std::memset(from->get(), 1, static_cast<size_t>(bytes));
  const double ns = FastestNs([&] {
    pool.ParallelFor(chunks, 1, [&](WorkRange range) {
      std::memcpy(to->get() + range.begin * kChunkBytes, from->get() + range.begin * kChunkBytes,
                  static_cast<size_t>((range.end - range.begin) * kChunkBytes));
    });
  });
  return 2.0 * static_cast<double>(bytes) / ns;
}

double MeasureReadGbps(int64_t working_set_bytes, CpuIsa isa, ThreadPool& pool) {
  const int64_t chunks = std::max<int64_t>(working_set_bytes / kChunkBytes, pool.threads());
  const int64_t bytes = chunks * kChunkBytes;
  const auto from = AllocateHostMemory(bytes);
  CHECK_OK(from);
  std::memset(from->get(), 1, static_cast<size_t>(bytes));
  const auto read = kReadFloats[isa];
  const double ns = FastestNs([&] {
    pool.ParallelFor(chunks, 1, [&](WorkRange range) {
      volatile float sink;
      float sum = 0;
      read(reinterpret_cast<const float*>(from->get() + range.begin * kChunkBytes),
           (range.end - range.begin) * kChunkBytes / 4, sum);
      sink = sum;
      static_cast<void>(sink);
    });
  });
  return static_cast<double>(bytes) / ns;
}

double MeasurePeakGflops(Precision precision, CpuIsa isa, ThreadPool& pool) {
  constexpr int64_t kRounds = 20000;
  const auto spin = kSpinMultiplyAdds[isa];
  const int64_t parts = 4 * pool.threads();
  int64_t multiply_adds = 0;
  spin(precision, kRounds, multiply_adds);
  const double ns = FastestNs([&] {
    pool.ParallelFor(parts, 1, [&](WorkRange range) {
      int64_t ignored = 0;
      for (int64_t i = range.begin; i < range.end; ++i) spin(precision, kRounds, ignored);
    });
  });
  return 2.0 * static_cast<double>(multiply_adds * parts) / ns;
}

}  // namespace troupe
