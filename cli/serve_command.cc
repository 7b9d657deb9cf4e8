// troupe serve: coordinator, worker and cache in one process, until a signal.

#include <iostream>
#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/log.h"
#include "base/shutdown_signals.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/embedded_cluster.h"
#include "config/program_config.h"
#include "worker/rank_options.h"

namespace troupe {
namespace {

struct Settings {
  EmbeddedCluster::Config cluster = {.listen = "127.0.0.1:7100"};
  int64_t min_batch_delay_ms = 0;
  int64_t shutdown_grace_ms = 10000;
  std::string log_level = "info";
};

void Declare(Settings* s, ProgramConfig* program) {
  EmbeddedCluster::Config& cluster = s->cluster;
  program->Add("model", &cluster.model, {.help = "Folder of the model.", .required = true});
  program->Add("listen", &cluster.listen,
               {.help = "Address to serve on; port 0 takes any that is free."});
  program->Add("dtype", &cluster.dtype,
               {.help = "Of products, keys and values.", .choices = {"f32", "bf16"}});
  program->Add("load_format", &cluster.load_format,
               {.help = "Where weights come from; dummy: random ones, for a folder that may hold a "
                        "config.json alone.",
                .choices = {"safetensors", "dummy"}});
  program->Add("data_dir", &cluster.data_dir,
               {.help = "Folder of the cache; empty: $XDG_DATA_HOME/troupe or ~/.local/share."});
  program->Add("cache_bytes", &cluster.cache_bytes,
               {.help = "Most bytes the cache keeps.", .unit = "bytes", .min = uint64_t{1} << 20});
  program->Add("use_cache", &cluster.use_cache, {.help = "Keep KV blocks across requests."});
  program->Add(
      "ranks", &cluster.ranks,
      {.help = "Workers in this process that make one replica; 1: one, with the whole model.",
       .min = 1,
       .max = 64});
  program->Add(
      "layout", &cluster.layout,
      {.help = "How the replica is cut, such as \"tp2\", \"dp2 ep\" or \"tp2 pp2\"; empty: "
               "what suits the model and the ranks."});
  program->Add(
      "elastic", &cluster.elastic,
      {.help = "Let `troupe reshard` change the layout while it serves; of more ranks than "
               "the layout has, some are spares."});
  AddComputeOptions(/*note=*/"", &cluster.rank, program);
  AddSizeOptions(/*note=*/"", &cluster.rank, program);
  AddMaxRows(&cluster.rank, program);
  program->Add("gate_threshold", &cluster.gate_threshold,
               {.help = "Attention heads whose gate is below are skipped; -1: "
                        "DYNAMIC_ATTENTION_THRESHOLD in the environment, else the model's.",
                .min = -1,
                .max = 1});
  program->Add("max_batch_size", &cluster.fleet.scheduler.max_batch_size,
               {.help = "Sequences that run at once.", .min = 1, .max = 4096});
  program->Add("min_batch_delay_ms", &s->min_batch_delay_ms,
               {.help = "While nothing runs, wait so long for companions.",
                .unit = "ms",
                .min = 0,
                .max = 10000});
  program->Add(
      "mixed_prefill_tokens", &cluster.fleet.scheduler.mixed_prefill_tokens,
      {.help = "Most prompt tokens in a step that also decodes.", .unit = "tokens", .min = 1});
  program->Add("shutdown_grace_ms", &s->shutdown_grace_ms,
               {.help = "Time for requests under way to end.", .unit = "ms", .min = 0});
  program->Add(
      "log_level", &s->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe serve --model models/abacus");
  program->AddExample("troupe serve --model models/abacus --listen 127.0.0.1:0 --dtype f32");
  program->AddExample("troupe serve --model models/abacus --ranks 2 --layout tp2");
  program->AddExample("troupe serve --config serve.yaml");
}

}  // namespace

int ServeCommand(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe serve",
                        "Serves a model: coordinator, worker and cache in one process.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  settings.cluster.fleet.scheduler.min_batch_delay_us = settings.min_batch_delay_ms * 1000;
  std::cerr << program.EffectiveYaml();

  ShutdownSignals signals;
  auto cluster = EmbeddedCluster::Start(settings.cluster, ProgressBar());
  if (!cluster.ok()) {
    std::cerr << "troupe serve: " << cluster.status().message() << "\n";
    return kExitFailed;
  }
  int signal = 0;
  while (signal == 0 && !(*cluster)->ready()) signal = signals.WaitFor(/*milliseconds=*/20);
  if (signal == 0) {
    std::cout << "listening on " << (*cluster)->target() << std::endl;
    signal = signals.Wait();
  }
  LOG(INFO) << "shutting down" << Field("signal", signal);
  (*cluster)->Shutdown(absl::Milliseconds(settings.shutdown_grace_ms));
  return 0;
}

}  // namespace troupe
