// troupe-worker: one rank as a program.

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "base/log.h"
#include "base/shutdown_signals.h"
#include "base/terminal.h"
#include "config/program_config.h"
#include "worker/rank_options.h"
#include "worker/server.h"

namespace troupe {
namespace {

struct Settings {
  WorkerServer::Config server;
  std::string dtype = "bf16";
  std::string load_format = "safetensors";
  float gate_threshold = -1;
  int64_t collective_timeout_ms = 60000;
  int64_t shutdown_grace_ms = 10000;
  std::string log_level = "info";
};

void DeclareModel(Settings* settings, ProgramConfig* program) {
  Rank::Config& rank = settings->server.rank;
  program->Add("model", &rank.model,
               {.help = "Folder of the model: config and weights.", .required = true});
  program->Add("dtype", &settings->dtype,
               {.help = "Of products, keys and values; one for all workers of a coordinator.",
                .choices = {"f32", "bf16"}});
  program->Add("load_format", &settings->load_format,
               {.help = "Where weights come from; dummy: random ones, for a folder that may hold a "
                        "config.json alone.",
                .choices = {"safetensors", "dummy"}});
  program->Add("load_from_peers", &rank.load_from_peers,
               {.help = "When the layout changes, read weights from ranks that have them before "
                        "the disk."});
  AddComputeOptions(/*note=*/"", &rank, program);
  AddSizeOptions(/*note=*/"", &rank, program);
  AddMaxRows(&rank, program);
  program->Add("max_context", &rank.max_context,
               {.help = "Most tokens of a sequence; 0: what the model was made for.",
                .unit = "tokens",
                .min = 0});
  program->Add("gate_threshold", &settings->gate_threshold,
               {.help = "Attention heads whose gate is below are skipped; -1: "
                        "DYNAMIC_ATTENTION_THRESHOLD in the environment, else the model's.",
                .min = -1,
                .max = 1});
}

void Declare(Settings* settings, ProgramConfig* program) {
  WorkerServer::Config& server = settings->server;
  DeclareModel(settings, program);
  program->Add("listen", &server.rpc.listen,
               {.help = "Address to serve on, host:port or unix:PATH; port 0 takes any."});
  program->Add("advertise", &server.advertise,
               {.help = "host:port where the coordinator reaches this worker; empty: as listen."});
  program->Add("name", &server.name,
               {.help = "Unique among live workers; empty: the advertised address."});
  program->Add("coordinator", &server.coordinator,
               {.help = "The coordinator's address; empty: announce this worker to nobody."});
  program->Add("cache", &server.cache, {.help = "Address of the cache service; empty: none."});
  program->Add("sharded", &server.sharded,
               {.help = "Take the rank that the coordinator assigns, instead of loading the whole "
                        "model at once."});
  program->Add("ranks_host", &server.ranks_host,
               {.help = "This machine's address for other ranks; empty: the host of advertise or "
                        "listen, else 127.0.0.1."});
  program->Add(
      "collective_timeout_ms", &settings->collective_timeout_ms,
      {.help = "How long to wait for another rank in one operation.", .unit = "ms", .min = 100});
  program->Add("shutdown_grace_ms", &settings->shutdown_grace_ms,
               {.help = "Time for the session to end.", .unit = "ms", .min = 0});
  program->Add(
      "log_level", &settings->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe-worker --model models/abacus");
  program->AddExample(
      "troupe-worker --model models/abacus --listen 127.0.0.1:7102 --cache 127.0.0.1:7103");
  program->AddExample(
      "troupe-worker --model models/abacus --listen 0.0.0.0:7101 --advertise gpu7:7101 "
      "--coordinator head:7100");
  program->AddExample(
      "troupe-worker --model models/abacus --sharded --listen 10.0.0.7:7101 --coordinator "
      "head:7100");
  program->AddExample("troupe-worker --config worker.yaml");
}

int Main(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe-worker", "Computes what a coordinator plans: one rank of a model.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  WorkerServer::Config& config = settings.server;
  config.rank.mode = settings.dtype == "f32" ? ComputeMode::kF32 : ComputeMode::kBf16;
  config.collective_timeout = absl::Milliseconds(settings.collective_timeout_ms);
  config.rank.dummy_weights = settings.load_format == "dummy";
  if (settings.gate_threshold != -1) config.gate_threshold = settings.gate_threshold;
  std::cerr << program.EffectiveYaml();

  ShutdownSignals signals;
  auto server = WorkerServer::Start(config, ProgressBar());
  if (!server.ok()) {
    std::cerr << "troupe-worker: " << server.status().message() << "\n";
    return EXIT_FAILURE;
  }
  LOG(INFO) << "serving" << Field("address", (*server)->address())
            << Field("worker", (*server)->info().worker()) << Field("model", config.rank.model);
  const int signal = signals.Wait();
  LOG(INFO) << "shutting down" << Field("signal", signal);
  (*server)->Shutdown(absl::Milliseconds(settings.shutdown_grace_ms));
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
