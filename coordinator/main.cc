// troupe-coordinator: the front door and scheduler as a program.

#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "base/log.h"
#include "base/shutdown_signals.h"
#include "config/program_config.h"
#include "coordinator/server.h"

namespace troupe {
namespace {

struct Settings {
  CoordinatorServer::Config server;
  std::string load_format = "safetensors";
  int64_t shutdown_grace_ms = 10000;
  int64_t min_batch_delay_ms = 0;
  std::string log_level = "info";
};

void DeclareElastic(CoordinatorServer::Config* server, ProgramConfig* program) {
  program->Add(
      "elastic", &server->elastic,
      {.help = "All sharded workers make one replica, whose layout `troupe reshard` changes "
               "while it serves; those without a place are spares."});
  program->Add("rebalance_above", &server->reshard.rebalance.above,
               {.help = "Of an elastic replica: experts move by themselves when the busiest rank "
                        "computes so many times the mean; 0: never.",
                .min = 0,
                .max = 1024});
  program->Add("rebalance_interval_ms", &server->reshard.rebalance.interval_ms,
               {.help = "Between two looks at that, and after any change of layout.",
                .unit = "ms",
                .min = 1000});
  program->Add("rank_memory", &server->reshard.sizing.memory_bytes,
               {.help = "Memory of each rank, to refuse layouts that do not fit; 0: not known.",
                .unit = "bytes",
                .min = 0});
}

void Declare(Settings* settings, ProgramConfig* program) {
  CoordinatorServer::Config& server = settings->server;
  Scheduler::Config& scheduler = server.fleet.scheduler;
  program->Add("listen", &server.rpc.listen,
               {.help = "Address to serve on; port 0 takes any that is free."});
  program->Add(
      "model", &server.model,
      {.help = "Folder of the model: configs, tokenizer, chat template.", .required = true});
  program->Add("load_format", &settings->load_format,
               {.help = "dummy: beside workers with random weights, for a folder that may hold a "
                        "config.json alone; tokens are spelled t0, t1...",
                .choices = {"safetensors", "dummy"}});
  program->Add("cache", &server.cache, {.help = "Address of the cache service; empty: none."});
  program->Add("data_dir", &server.data_dir,
               {.help = "Folder for the tenants' secret and for layouts."});
  DeclareElastic(&server, program);
  program->Add("threads", &server.threads,
               {.help = "Threads that run actors.", .min = 1, .max = 256});
  program->Add("max_batch_size", &scheduler.max_batch_size,
               {.help = "Sequences that run at once on a worker.", .min = 1, .max = 4096});
  program->Add("min_batch_delay_ms", &settings->min_batch_delay_ms,
               {.help = "While nothing runs, wait so long for companions.",
                .unit = "ms",
                .min = 0,
                .max = 10000});
  program->Add("max_waiting", &scheduler.max_waiting,
               {.help = "Requests that may wait for a worker's memory.", .min = 1});
  program->Add(
      "mixed_prefill_tokens", &scheduler.mixed_prefill_tokens,
      {.help = "Most prompt tokens in a step that also decodes.", .unit = "tokens", .min = 1});
  program->Add("max_requests", &server.service.max_requests,
               {.help = "Requests that may be under way at once.", .min = 1});
  program->Add("ranks", &server.ranks,
               {.help = "Workers that make one replica; 1: each loads the whole model.",
                .min = 1,
                .max = 1024});
  program->Add("layout", &server.layout,
               {.help = "How a replica is cut, such as \"tp2\", \"dp2 ep\" or \"tp2 pp2\"; empty: "
                        "what suits the model and the ranks."});
  program->Add("rank_timeout_ms", &server.fleet.rank_timeout_ms,
               {.help = "A rank that owes a step for so long makes its replica unready.",
                .unit = "ms",
                .min = 100});
  program->Add(
      "rank_lost_ms", &server.fleet.rank_lost_ms,
      {.help = "And after so long is given up: its replica forms anew.", .unit = "ms", .min = 100});
  program->Add("heartbeat_ms", &server.fleet.heartbeat_ms,
               {.help = "How often workers announce themselves.", .unit = "ms", .min = 10});
  program->Add(
      "no_worker_timeout_ms", &server.fleet.no_worker_timeout_ms,
      {.help = "How long a request waits while no worker is ready.", .unit = "ms", .min = 0});
  program->Add("shutdown_grace_ms", &settings->shutdown_grace_ms,
               {.help = "Time for requests under way to end.", .unit = "ms", .min = 0});
  program->Add(
      "log_level", &settings->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe-coordinator --model models/abacus");
  program->AddExample(
      "troupe-coordinator --model models/abacus --listen 0.0.0.0:7100 --cache 127.0.0.1:7103");
  program->AddExample("troupe-coordinator --model models/abacus --layout tp2");
  program->AddExample("troupe-coordinator --config coordinator.yaml");
}

int Main(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe-coordinator",
                        "Takes requests, schedules them on workers, streams what they generate.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  settings.server.fleet.scheduler.min_batch_delay_us = settings.min_batch_delay_ms * 1000;
  settings.server.dummy_tokenizer = settings.load_format == "dummy";
  std::cerr << program.EffectiveYaml();

  ShutdownSignals signals;
  auto server = CoordinatorServer::Start(settings.server);
  if (!server.ok()) {
    std::cerr << "troupe-coordinator: " << server.status().message() << "\n";
    return EXIT_FAILURE;
  }
  LOG(INFO) << "serving" << Field("port", (*server)->port());
  const int signal = signals.Wait();
  LOG(INFO) << "shutting down" << Field("signal", signal);
  (*server)->Shutdown(absl::Milliseconds(settings.shutdown_grace_ms));
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
