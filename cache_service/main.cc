// troupe-cache: the cache service as a program.

#include <cstdlib>
#include <iostream>
#include <optional>

#include "absl/time/time.h"
#include "base/log.h"
#include "base/shutdown_signals.h"
#include "cache_service/server.h"
#include "config/program_config.h"

namespace troupe {
namespace {

struct Settings {
  CacheServer::Config server = {.rpc = {.listen = "127.0.0.1:7103"},
                                .store = {.data_dir = "troupe-cache-data"}};
  int64_t shutdown_grace_ms = 5000;
  std::string log_level = "info";
};

void Declare(Settings* settings, ProgramConfig* program) {
  CacheServer::Config& server = settings->server;
  program->Add("listen", &server.rpc.listen,
               {.help = "Address to serve on; port 0 takes any that is free."});
  program->Add("data_dir", &server.store.data_dir, {.help = "Folder that holds the values."});
  program->Add("capacity_bytes", &server.capacity_bytes,
               {.help = "Most bytes of values to keep; puts beyond are refused.",
                .unit = "bytes",
                .min = uint64_t{1} << 20});
  program->Add("io_threads", &server.io_threads,
               {.help = "Disk reads and writes that may run at once.", .min = 1, .max = 256});
  program->Add("max_arriving_bytes", &server.service.max_arriving_bytes,
               {.help = "Most bytes of values that may be arriving at once.",
                .unit = "bytes",
                .min = uint64_t{64} << 20});
  program->Add("block_cache_bytes", &server.store.block_cache_bytes,
               {.help = "Memory for the index of what is stored.", .unit = "bytes"});
  program->Add("write_buffer_bytes", &server.store.write_buffer_bytes,
               {.help = "Memory for new values before they go to files; twice this is used.",
                .unit = "bytes",
                .min = uint64_t{1} << 20});
  program->Add("background_threads", &server.store.background_threads,
               {.help = "Threads that write and reclaim files.", .min = 1, .max = 64});
  program->Add("keepalive_time_ms", &server.rpc.keepalive_time_ms,
               {.help = "Silence after which a client is probed.", .unit = "ms", .min = 1000});
  program->Add("shutdown_grace_ms", &settings->shutdown_grace_ms,
               {.help = "Time for calls under way to end.", .unit = "ms", .min = 0});
  program->Add(
      "log_level", &settings->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe-cache --data-dir /var/lib/troupe-cache --capacity-bytes 100GiB");
  program->AddExample("troupe-cache --config cache.yaml --listen 0.0.0.0:7103");
  program->AddExample("troupe-cache --print-config > cache.yaml");
}

int Main(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe-cache", "Keeps KV blocks across requests, models and restarts.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  std::cerr << program.EffectiveYaml();

  ShutdownSignals signals;
  auto server = CacheServer::Start(settings.server);
  if (!server.ok()) {
    std::cerr << "troupe-cache: " << server.status().message() << "\n";
    return EXIT_FAILURE;
  }
  const StoreStats stats = (*server)->stats();
  LOG(INFO) << "serving" << Field("port", (*server)->port()) << Field("values", stats.values)
            << Field("used_bytes", stats.used_bytes);
  const int signal = signals.Wait();
  LOG(INFO) << "shutting down" << Field("signal", signal);
  (*server)->Shutdown(absl::Milliseconds(settings.shutdown_grace_ms));
  server->reset();
  LOG(INFO) << "stopped";
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
