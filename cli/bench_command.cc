// troupe bench: a load on a server, and what its clients saw.

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/embedded_cluster.h"
#include "cli/load_generator.h"
#include "cli/request_flags.h"
#include "config/program_config.h"
#include "nlohmann/json.hpp"
#include "worker/rank_options.h"

namespace troupe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kIntruderOutputTokens = 4;

struct Settings {
  std::string target;
  EmbeddedCluster::Config cluster;
  RequestFlags request;
  int concurrency = 8;
  int requests = 32;
  int prompt_tokens = 128;
  int prompt_tokens_max = 0;
  int output_tokens = 64;
  int output_tokens_max = 0;
  int vocabulary = 512;
  std::vector<std::string> tenants;
  std::vector<std::string> priorities;
  int intruder_tokens = 0;
  int64_t intruder_after_ms = 2000;
  std::string output = "text";
};

void Declare(Settings* s, ProgramConfig* program) {
  program->Add("target", &s->target, {.help = "A running server's address."});
  program->Add("model", &s->cluster.model,
               {.help = "Folder of a model to run in this process, instead of --target."});
  program->Add("dtype", &s->cluster.dtype,
               {.help = "Of products, keys and values. With --model.", .choices = {"f32", "bf16"}});
  program->Add("load_format", &s->cluster.load_format,
               {.help = "Where weights come from; dummy: random ones, for a folder that may hold a "
                        "config.json alone. With --model.",
                .choices = {"safetensors", "dummy"}});
  AddComputeOptions(" With --model.", &s->cluster.rank, program);
  AddSizeOptions(" With --model.", &s->cluster.rank, program);
  program->Add("max_context", &s->cluster.rank.max_context,
               {.help = "Most tokens of a sequence; 0: what the requests need. With --model.",
                .unit = "tokens",
                .min = 0});
  program->Add("max_batch_size", &s->cluster.fleet.scheduler.max_batch_size,
               {.help = "Sequences that run at once. With --model.", .min = 1, .max = 4096});
  program->Add("concurrency", &s->concurrency,
               {.help = "Streams; each sends one request after another.", .min = 1, .max = 1024});
  program->Add("requests", &s->requests, {.help = "Requests in all.", .min = 1});
  program->Add("prompt_tokens", &s->prompt_tokens,
               {.help = "Random tokens of a prompt.", .unit = "tokens", .min = 1});
  program->Add("prompt_tokens_max", &s->prompt_tokens_max,
               {.help = "Prompts of mixed lengths, up to this; 0: all equal.", .unit = "tokens"});
  program->Add("output_tokens", &s->output_tokens,
               {.help = "Tokens to generate; end tokens are ignored.", .unit = "tokens", .min = 1});
  program->Add("output_tokens_max", &s->output_tokens_max,
               {.help = "Outputs of mixed lengths, up to this; 0: all equal.", .unit = "tokens"});
  program->Add("vocabulary", &s->vocabulary, {.help = "Random tokens are below this.", .min = 16});
  program->Add("tenants", &s->tenants,
               {.help = "NAME=STREAMS, repeated: streams of several tenants, instead of "
                        "--concurrency."});
  program->Add("priorities", &s->priorities,
               {.help = "PRIORITY=STREAMS, repeated: streams of several priorities."});
  program->Add(
      "intruder_tokens", &s->intruder_tokens,
      {.help = "One long prompt that arrives among the others; 0: none.", .unit = "tokens"});
  program->Add("intruder_after_ms", &s->intruder_after_ms,
               {.help = "When it arrives.", .unit = "ms", .min = 0});
  s->request.Declare(program);
  program->Add("output", &s->output,
               {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program->AddExample("troupe bench --model models/abacus --concurrency 16 --requests 64");
  program->AddExample(
      "troupe bench --model bench/shapes/qwen3-0.6b --load-format dummy --concurrency 1");
  program->AddExample(
      "troupe bench --target 127.0.0.1:7100 --tenants busy=12 --tenants quiet=1 --requests 100");
  program->AddExample(
      "troupe bench --model models/abacus --concurrency 4 --requests 4 --output-tokens 2000 "
      "--intruder-tokens 64000");
}

// Makes prompts from a fixed seed: runs are comparable.
class PromptMaker {
 public:
  explicit PromptMaker(const Settings& settings) : settings_(settings) {}

  v1::GenerateRequest Make(int prompt_tokens, int output_tokens, int priority) {
    v1::GenerateRequest request;
    for (int i = 0; i < prompt_tokens; ++i) {
      // The first few ids are special in most vocabularies.
      request.mutable_token_ids()->add_ids(8 + random_() % (settings_.vocabulary - 8));
    }
    v1::GenerateOptions& options = *request.mutable_options();
    settings_.request.Fill(&options);
    options.set_max_tokens(output_tokens);
    options.set_ignore_eos(true);
    options.set_priority(priority);
    return request;
  }

  v1::GenerateRequest Mixed(int priority) {
    return Make(Between(settings_.prompt_tokens, settings_.prompt_tokens_max),
                Between(settings_.output_tokens, settings_.output_tokens_max), priority);
  }

 private:
  int Between(int least, int most) {
    return most <= least ? least : least + static_cast<int>(random_() % (most - least + 1));
  }

  const Settings& settings_;
  std::mt19937 random_{20240607};
};

// Tokens that the longest sequence reaches.
int LongestSequence(const Settings& s) {
  return std::max(std::max(s.prompt_tokens, s.prompt_tokens_max) +
                      std::max(s.output_tokens, s.output_tokens_max),
                  s.intruder_tokens + kIntruderOutputTokens);
}

struct StreamKind {
  std::string group;
  std::string tenant;
  int priority = 0;
  int streams = 0;
};

absl::StatusOr<std::vector<StreamKind>> Kinds(const Settings& s) {
  std::vector<StreamKind> kinds;
  auto parse = [&](const std::string& text, bool tenant) -> absl::Status {
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    StreamKind kind{.group = text, .tenant = tenant ? parts.first : ""};
    if (!absl::SimpleAtoi(parts.second, &kind.streams) || kind.streams < 1 ||
        (!tenant && !absl::SimpleAtoi(parts.first, &kind.priority))) {
      return absl::InvalidArgumentError(absl::StrCat(tenant ? "--tenants" : "--priorities",
                                                     ": found ", text, ", wanted ",
                                                     tenant ? "NAME=STREAMS" : "PRIORITY=STREAMS"));
    }
    kinds.push_back(kind);
    return absl::OkStatus();
  };
  for (const std::string& text : s.tenants) {
    if (absl::Status status = parse(text, true); !status.ok()) return status;
  }
  for (const std::string& text : s.priorities) {
    if (absl::Status status = parse(text, false); !status.ok()) return status;
  }
  if (kinds.empty()) kinds.push_back({.group = "all", .streams = s.concurrency});
  return kinds;
}

LoadPlan MakePlan(const Settings& s, const std::vector<StreamKind>& kinds,
                  const std::string& target) {
  PromptMaker maker(s);
  LoadPlan plan{.target = target};
  int streams = 0;
  for (const StreamKind& kind : kinds) streams += kind.streams;
  for (const StreamKind& kind : kinds) {
    for (int i = 0; i < kind.streams; ++i) {
      LoadStream stream{.group = kind.group, .tenant = kind.tenant};
      stream.requests = std::max(1, s.requests / streams);
      for (int r = 0; r < stream.requests; ++r) {
        stream.prompts.push_back(maker.Mixed(kind.priority));
      }
      plan.streams.push_back(std::move(stream));
    }
  }
  if (s.intruder_tokens > 0) {
    LoadStream stream{.group = "intruder", .start_us = s.intruder_after_ms * 1000};
    stream.prompts.push_back(maker.Make(s.intruder_tokens, kIntruderOutputTokens, 0));
    plan.streams.push_back(std::move(stream));
  }
  return plan;
}

Json Spread(std::vector<double> values) {
  return {{"min", Percentile(values, 0)},
          {"p50", Percentile(values, .5)},
          {"p90", Percentile(values, .9)},
          {"p99", Percentile(values, .99)},
          {"max", Percentile(values, 1)}};
}

// Milliseconds between tokens of a group's requests, in [from_us, to_us).
std::vector<double> Gaps(const std::vector<RequestTiming>& all, const std::string& group,
                         int64_t from_us, int64_t to_us) {
  std::vector<double> gaps;
  for (const RequestTiming& timing : all) {
    if (timing.group != group) continue;
    for (size_t i = 1; i < timing.token_us.size(); ++i) {
      if (timing.token_us[i] < from_us || timing.token_us[i] >= to_us) continue;
      gaps.push_back(static_cast<double>(timing.token_us[i] - timing.token_us[i - 1]) / 1e3);
    }
  }
  return gaps;
}

// Milliseconds between tokens while every request of the group has its first one and not its last
// one yet; empty where there is no such time.
std::vector<double> GapsWhileAllDecode(const std::vector<RequestTiming>& all,
                                       const std::string& group) {
  int64_t from_us = 0;
  int64_t to_us = INT64_MAX;
  for (const RequestTiming& timing : all) {
    if (timing.group != group || timing.token_us.empty()) continue;
    from_us = std::max(from_us, timing.token_us.front());
    to_us = std::min(to_us, timing.token_us.back());
  }
  return Gaps(all, group, from_us, to_us);
}

Json ReportGroup(const std::vector<RequestTiming>& all, const std::string& group) {
  std::vector<double> ttft_ms;
  std::vector<double> tpot_ms;
  int64_t first_us = INT64_MAX;
  int64_t last_us = 0;
  int64_t requests = 0;
  int64_t failed = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double skipped = 0;
  double heads = 0;
  for (const RequestTiming& timing : all) {
    if (timing.group != group) continue;
    ++requests;
    failed += timing.error.empty() ? 0 : 1;
    if (timing.token_us.empty()) continue;
    const auto tokens = static_cast<int64_t>(timing.token_us.size());
    first_us = std::min(first_us, timing.sent_us);
    last_us = std::max(last_us, timing.done_us);
    prompt_tokens += timing.prompt_tokens;
    output_tokens += tokens;
    ttft_ms.push_back(static_cast<double>(timing.token_us.front() - timing.sent_us) / 1e3);
    if (tokens > 1) {
      tpot_ms.push_back(static_cast<double>(timing.token_us.back() - timing.token_us.front()) /
                        1e3 / static_cast<double>(tokens - 1));
    }
    heads += static_cast<double>(timing.heads_total);
    skipped += static_cast<double>(timing.heads_skipped);
  }
  const double seconds = last_us > first_us ? static_cast<double>(last_us - first_us) / 1e6 : 0;
  return {{"requests", requests},
          {"failed", failed},
          {"seconds", seconds},
          {"prompt_tokens", prompt_tokens},
          {"output_tokens", output_tokens},
          {"output_tokens_per_s", seconds > 0 ? static_cast<double>(output_tokens) / seconds : 0},
          {"requests_per_s", seconds > 0 ? static_cast<double>(requests) / seconds : 0},
          {"heads_skipped", heads > 0 ? skipped / heads : 0},
          {"ttft_ms", Spread(ttft_ms)},
          {"tpot_ms", Spread(tpot_ms)},
          {"gap_ms", Spread(Gaps(all, group, 0, INT64_MAX))},
          {"gap_all_decode_ms", Spread(GapsWhileAllDecode(all, group))}};
}

Json Report(const std::vector<RequestTiming>& all) {
  Json report = {{"groups", Json::object()}};
  std::optional<RequestTiming> intruder;
  std::map<std::string, bool> groups;
  for (const RequestTiming& timing : all) {
    groups[timing.group] = true;
    if (timing.group == "intruder") intruder = timing;
  }
  for (const auto& [group, unused] : groups) report["groups"][group] = ReportGroup(all, group);
  if (!intruder.has_value() || intruder->token_us.empty()) return report;
  for (const auto& [group, unused] : groups) {
    if (group == "intruder") continue;
    report["groups"][group]["gap_before_intruder_ms"] =
        Spread(Gaps(all, group, 0, intruder->sent_us));
    report["groups"][group]["gap_during_intruder_ms"] =
        Spread(Gaps(all, group, intruder->sent_us, intruder->token_us.front()));
  }
  return report;
}

void PrintText(const Json& report) {
  for (const auto& [name, group] : report["groups"].items()) {
    std::cout << absl::StrFormat(
        "%s: %d requests (%d failed) in %.2f s: %.0f output tokens/s, %.2f requests/s, %.1f %% of "
        "heads skipped\n",
        name, group["requests"].get<int64_t>(), group["failed"].get<int64_t>(),
        group["seconds"].get<double>(), group["output_tokens_per_s"].get<double>(),
        group["requests_per_s"].get<double>(), group["heads_skipped"].get<double>() * 100);
    for (const auto& [what, spread] : group.items()) {
      if (!spread.is_object()) continue;
      std::cout << absl::StrFormat("  %-24s p50 %8.2f  p90 %8.2f  p99 %8.2f  max %8.2f\n", what,
                                   spread["p50"].get<double>(), spread["p90"].get<double>(),
                                   spread["p99"].get<double>(), spread["max"].get<double>());
    }
  }
}

}  // namespace

int BenchCommand(int argc, char** argv) {
  Settings settings;
  settings.cluster.use_cache = false;
  settings.request.use_cache = false;
  ProgramConfig program("troupe bench", "Measures a server under load.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(LogLevel::kWarning);
  absl::StatusOr<std::vector<StreamKind>> kinds = Kinds(settings);
  absl::Status checked = kinds.ok() ? settings.request.Check() : kinds.status();
  if (checked.ok() && settings.target.empty() == settings.cluster.model.empty()) {
    checked = absl::InvalidArgumentError("wanted one of --model and --target");
  }
  if (!checked.ok()) {
    std::cerr << "troupe bench: " << checked.message() << "\n";
    return kExitUsage;
  }
  std::unique_ptr<EmbeddedCluster> cluster;
  if (settings.target.empty()) {
    int& max_context = settings.cluster.rank.max_context;
    if (max_context == 0) max_context = LongestSequence(settings);
    auto started = EmbeddedCluster::Start(settings.cluster, ProgressBar());
    if (!started.ok()) {
      std::cerr << "troupe bench: " << started.status().message() << "\n";
      return kExitFailed;
    }
    cluster = *std::move(started);
  }
  const std::vector<RequestTiming> timings =
      RunLoad(MakePlan(settings, *kinds, cluster ? cluster->target() : settings.target));
  const Json report = Report(timings);
  if (settings.output == "json") {
    std::cout << report.dump(2) << "\n";
  } else {
    PrintText(report);
  }
  for (const RequestTiming& timing : timings) {
    if (timing.error.empty()) continue;
    std::cerr << "troupe bench: a request failed: " << timing.error << "\n";
    return kExitFailed;
  }
  return 0;
}

}  // namespace troupe
