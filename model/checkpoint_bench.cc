// Opening a checkpoint, and reading all of it: the identity's hash against a plain read of the page
// cache. TROUPE_MODEL names another folder than the bundled model's.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "model/checkpoint.h"

namespace troupe {
namespace {

std::string Folder() {
  const char* folder = std::getenv("TROUPE_MODEL");
  return folder != nullptr ? folder : "models/abacus";
}

void BM_Open(benchmark::State& state) {
  for (auto _ : state) {
    auto checkpoint = Checkpoint::Open(Folder());
    if (!checkpoint.ok()) {
      state.SkipWithError(checkpoint.status().ToString().c_str());
      return;
    }
    benchmark::DoNotOptimize(checkpoint->parameters().total);
  }
}
BENCHMARK(BM_Open)->Unit(benchmark::kMicrosecond);

void BM_Identity(benchmark::State& state) {
  const auto checkpoint = Checkpoint::Open(Folder());
  if (!checkpoint.ok()) {
    state.SkipWithError(checkpoint.status().ToString().c_str());
    return;
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(checkpoint->ComputeIdentity(static_cast<int>(state.range(0))));
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(checkpoint->files().file_bytes()));
}
BENCHMARK(BM_Identity)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

// The ceiling: one thread copying the mapped bytes to memory.
void BM_CopyMapped(benchmark::State& state) {
  const auto checkpoint = Checkpoint::Open(Folder());
  if (!checkpoint.ok()) {
    state.SkipWithError(checkpoint.status().ToString().c_str());
    return;
  }
  std::string buffer;
  for (auto _ : state) {
    for (const auto& file : checkpoint->files().files()) {
      buffer.resize(std::max(buffer.size(), file->bytes().size()));
      std::memcpy(buffer.data(), file->bytes().data(), file->bytes().size());
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(checkpoint->files().file_bytes()));
}
BENCHMARK(BM_CopyMapped)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace troupe
