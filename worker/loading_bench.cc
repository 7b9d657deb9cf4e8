// Loading a checkpoint as a worker does, identity and weights, from the disk and from the page
// cache, beside the ceilings: plain reads of the same files. TROUPE_MODEL names another folder than
// the bundled model's; `bench/make_checkpoint` writes a large one.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "kernels/cpu_isa.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "worker/loaded_model.h"

namespace troupe {
namespace {

constexpr int kThreads = 2;

std::string Folder() {
  const char* folder = std::getenv("TROUPE_MODEL");
  return folder != nullptr ? folder : "models/abacus";
}

std::vector<std::string> WeightFiles() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  return files;
}

int64_t WeightBytes() {
  int64_t bytes = 0;
  for (const std::string& file : WeightFiles()) {
    bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  }
  return bytes;
}

// Drops the files from the page cache, where they were not written to since.
void ForgetFiles() {
  for (const std::string& file : WeightFiles()) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0) << file;
    fdatasync(fd);
    CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
  }
}

// Every other chunk of a file, from `first` on.
void ReadChunks(const std::string& file, int first) {
  constexpr int64_t kChunkBytes = 4 << 20;
  std::vector<char> buffer(kChunkBytes);
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK_GE(fd, 0) << file;
  for (int64_t chunk = first;; chunk += kThreads) {
    const ssize_t got = pread(fd, buffer.data(), kChunkBytes, chunk * kChunkBytes);
    CHECK_GE(got, 0) << file;
    if (got == 0) break;
    benchmark::DoNotOptimize(buffer.data());
  }
  close(fd);
}

void ReadFiles() {
  std::vector<std::thread> threads;
  for (int first = 0; first < kThreads; ++first) {
    threads.emplace_back([first] {
      for (const std::string& file : WeightFiles()) ReadChunks(file, first);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// `work` with the files on the disk alone, or in the page cache.
template <class Work>
void Measure(benchmark::State& state, bool from_disk, const Work& work) {
  ReadFiles();
  for (auto _ : state) {
    if (from_disk) {
      state.PauseTiming();
      ForgetFiles();
      state.ResumeTiming();
    }
    work();
  }
  state.SetBytesProcessed(state.iterations() * WeightBytes());
}

void BM_ReadFiles(benchmark::State& state, bool from_disk) { Measure(state, from_disk, ReadFiles); }

void BM_Identity(benchmark::State& state, bool from_disk) {
  Measure(state, from_disk, [] {
    const auto checkpoint = Checkpoint::Open(Folder());
    CHECK_OK(checkpoint.status());
    CHECK_OK(checkpoint->ComputeIdentity(kThreads).status());
  });
}

void BM_Load(benchmark::State& state, bool from_disk, std::optional<IntegerFormat> quantize) {
  const auto isa = DetectCpuIsa();
  CHECK_OK(isa.status());
  Measure(state, from_disk, [&] {
    const auto ops = MakeCpuOps({.threads = kThreads, .isa = *isa});
    const auto checkpoint = Checkpoint::Open(Folder());
    CHECK_OK(checkpoint.status());
    const auto model =
        LoadModel(*checkpoint, ops.get(),
                  {.mode = ComputeMode::kBf16, .quantize = quantize, .threads = kThreads});
    CHECK_OK(model.status());
    benchmark::DoNotOptimize(model->weight_bytes);
  });
}

void Settings(benchmark::internal::Benchmark* bench) {
  bench->Unit(benchmark::kMillisecond)->UseRealTime();
}

constexpr IntegerFormat kInt8{.bits = 8, .group = 128};
constexpr IntegerFormat kInt4{.bits = 4, .group = 64};

BENCHMARK_CAPTURE(BM_ReadFiles, page_cache, false)->Apply(Settings);
BENCHMARK_CAPTURE(BM_ReadFiles, disk, true)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Identity, page_cache, false)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Identity, disk, true)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Load, page_cache, false, std::nullopt)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Load, disk, true, std::nullopt)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Load, page_cache_int8, false, kInt8)->Apply(Settings);
BENCHMARK_CAPTURE(BM_Load, page_cache_int4_g64, false, kInt4)->Apply(Settings);

}  // namespace
}  // namespace troupe
