// What a value costs on its way in and out: through the store alone, and through gRPC on one
// machine.
//
// Ceilings of the same run stand first: copying memory, and writing and reading a file. Values are
// written without syncing, as the store does it, and read from the page cache when they fit in it.
// Counters: bytes_per_second, p50_us and p99_us of one value.

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <future>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "cache_client/cache_client.h"
#include "cache_client/crc32c.h"
#include "cache_service/server.h"
#include "cache_service/test_values.h"

namespace troupe {
namespace {

constexpr uint64_t kValues = 64;  // that reads go round

// A folder of one benchmark, gone after it.
class BenchFolder {
 public:
  BenchFolder()
      : path_(std::filesystem::temp_directory_path() / absl::StrCat("cache_bench.", getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~BenchFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Times each iteration, and reports percentiles and bandwidth.
class Latencies {
 public:
  template <typename Work>
  void Time(Work&& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::micro> taken =
        std::chrono::steady_clock::now() - start;
    micros_.push_back(taken.count());
  }

  void Report(benchmark::State& state) {
    std::sort(micros_.begin(), micros_.end());
    state.counters["p50_us"] = micros_[micros_.size() / 2];
    state.counters["p99_us"] = micros_[micros_.size() * 99 / 100];
    state.SetBytesProcessed(state.iterations() * state.range(0));
  }

 private:
  std::vector<double> micros_;
};

void BM_CeilingMemcpy(benchmark::State& state) {
  const std::string from = TestBytes(state.range(0), 1);
  std::string to(from.size(), '\0');
  Latencies latencies;
  for (auto _ : state) {
    latencies.Time([&] {
      std::memcpy(to.data(), from.data(), from.size());
      benchmark::DoNotOptimize(to.data());
      benchmark::ClobberMemory();
    });
  }
  latencies.Report(state);
}

void BM_CeilingCrc32c(benchmark::State& state) {
  const std::string bytes = TestBytes(state.range(0), 1);
  Latencies latencies;
  for (auto _ : state) latencies.Time([&] { benchmark::DoNotOptimize(Crc32c(bytes)); });
  latencies.Report(state);
}

void BM_CeilingFileWrite(benchmark::State& state) {
  const BenchFolder folder;
  const std::string bytes = TestBytes(state.range(0), 1);
  std::FILE* file = std::fopen((folder.path() + "/file").c_str(), "w");
  CHECK(file != nullptr);
  std::setbuf(file, nullptr);
  Latencies latencies;
  for (auto _ : state) {
    latencies.Time(
        [&] { CHECK_EQ(std::fwrite(bytes.data(), 1, bytes.size(), file), bytes.size()); });
  }
  std::fclose(file);
  latencies.Report(state);
}

void BM_CeilingFileRead(benchmark::State& state) {
  const BenchFolder folder;
  std::string bytes = TestBytes(state.range(0), 1);
  std::FILE* file = std::fopen((folder.path() + "/file").c_str(), "w+");
  CHECK(file != nullptr);
  std::setbuf(file, nullptr);
  for (uint64_t i = 0; i < kValues; ++i) std::fwrite(bytes.data(), 1, bytes.size(), file);
  Latencies latencies;
  uint64_t next = 0;
  for (auto _ : state) {
    latencies.Time([&] {
      std::fseek(file, static_cast<int64_t>(next++ % kValues * bytes.size()), SEEK_SET);
      CHECK_EQ(std::fread(bytes.data(), 1, bytes.size(), file), bytes.size());
    });
  }
  std::fclose(file);
  latencies.Report(state);
}

std::unique_ptr<RocksDbStore> OpenStore(const BenchFolder& folder) {
  auto store =
      RocksDbStore::Open({.data_dir = folder.path()}, MakeCapacityLimit(uint64_t{1} << 40));
  CHECK_OK(store);
  return *std::move(store);
}

void BM_StorePut(benchmark::State& state) {
  const BenchFolder folder;
  auto store = OpenStore(folder);
  const std::string value = TestBytes(state.range(0), 1);
  const uint32_t crc32c = Crc32c(value);
  Latencies latencies;
  uint64_t next = 0;
  for (auto _ : state) {
    const ValueId id = TestId(next++);
    latencies.Time([&] { CHECK_OK(store->Put(id, value, crc32c)); });
  }
  latencies.Report(state);
}

void BM_StoreGet(benchmark::State& state) {
  const BenchFolder folder;
  const std::string value = TestBytes(state.range(0), 1);
  {
    auto store = OpenStore(folder);
    for (uint64_t i = 0; i < kValues; ++i) CHECK_OK(store->Put(TestId(i), value, Crc32c(value)));
  }
  auto store = OpenStore(folder);  // again, so that reads come from files
  Latencies latencies;
  uint64_t next = 0;
  for (auto _ : state) {
    const ValueId id = TestId(next++ % kValues);
    latencies.Time([&] { CHECK_OK(store->Get(id)); });
  }
  latencies.Report(state);
}

// Server and client in one process, over loopback.
class Service {
 public:
  Service() {
    auto server = CacheServer::Start(
        {.store = {.data_dir = folder_.path()}, .capacity_bytes = uint64_t{1} << 40});
    CHECK_OK(server);
    server_ = *std::move(server);
    client_ = CacheClient::Connect(absl::StrCat("127.0.0.1:", server_->port()), {});
  }

  static CacheClient::Key KeyOf(uint64_t number) {
    const ValueId id = TestId(number);
    return {.block_key = id.block_key, .tenant_namespace = id.tenant_namespace, .group = id.group};
  }

  void Put(uint64_t number, std::string value) {
    std::promise<absl::Status> done;
    client_->Put(std::string(32, 'm'), {{KeyOf(number), std::move(value)}},
                 [&done](auto counts) { done.set_value(counts.status()); });
    CHECK_OK(done.get_future().get());
  }

  // Gets `count` values from `first` on in one call.
  void Get(uint64_t first, uint64_t count) {
    std::vector<CacheClient::Key> keys;
    for (uint64_t i = 0; i < count; ++i) keys.push_back(KeyOf((first + i) % kValues));
    std::promise<absl::Status> done;
    client_->Get(
        std::string(32, 'm'), keys, [](size_t, auto value) { CHECK(value->has_value()); },
        [&done](absl::Status status) { done.set_value(std::move(status)); });
    CHECK_OK(done.get_future().get());
  }

 private:
  const BenchFolder folder_;
  std::unique_ptr<CacheServer> server_;
  std::unique_ptr<CacheClient> client_;
};

void BM_ServicePut(benchmark::State& state) {
  Service service;
  const std::string value = TestBytes(state.range(0), 1);
  Latencies latencies;
  uint64_t next = 0;
  for (auto _ : state) {
    std::string copy = value;
    latencies.Time([&] { service.Put(next++, std::move(copy)); });
  }
  latencies.Report(state);
}

void BM_ServiceGet(benchmark::State& state) {
  Service service;
  for (uint64_t i = 0; i < kValues; ++i) service.Put(i, TestBytes(state.range(0), 1));
  Latencies latencies;
  uint64_t next = 0;
  for (auto _ : state) latencies.Time([&] { service.Get(next++, 1); });
  latencies.Report(state);
}

// One call for 16 values, as a prefix's blocks are fetched; times and bytes are of one value.
void BM_ServiceGetStream(benchmark::State& state) {
  constexpr uint64_t kBatch = 16;
  Service service;
  for (uint64_t i = 0; i < kValues; ++i) service.Put(i, TestBytes(state.range(0), 1));
  uint64_t next = 0;
  for (auto _ : state) service.Get(next += kBatch, kBatch);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kBatch) * state.range(0));
}

#define CACHE_BENCHMARK(name) \
  BENCHMARK(name)->Arg(64 << 10)->Arg(256 << 10)->Arg(1 << 20)->UseRealTime()->MinTime(0.3)

CACHE_BENCHMARK(BM_CeilingMemcpy);
CACHE_BENCHMARK(BM_CeilingCrc32c);
CACHE_BENCHMARK(BM_CeilingFileWrite);
CACHE_BENCHMARK(BM_CeilingFileRead);
CACHE_BENCHMARK(BM_StorePut);
CACHE_BENCHMARK(BM_StoreGet);
CACHE_BENCHMARK(BM_ServicePut);
CACHE_BENCHMARK(BM_ServiceGet);
CACHE_BENCHMARK(BM_ServiceGetStream);

}  // namespace
}  // namespace troupe
