// troupe run: one question, or a chat.

#include <unistd.h>

#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/embedded_cluster.h"
#include "cli/generate_client.h"
#include "cli/interrupts.h"
#include "cli/request_flags.h"
#include "config/program_config.h"
#include "nlohmann/json.hpp"
#include "worker/rank_options.h"

namespace troupe {
namespace {

struct Settings {
  std::vector<std::string> question;
  std::string target;
  EmbeddedCluster::Config cluster;
  RequestFlags request;
  std::string system;
  std::string output = "text";
  std::string log_level = "warning";
};

void Declare(Settings* s, ProgramConfig* program) {
  program->AddPositional("QUESTION", &s->question, "What to ask; without it, a chat.");
  program->Add("model", &s->cluster.model, {.help = "Folder of the model to run in this process."});
  program->Add("target", &s->target,
               {.help = "A running server's address, instead of a model in this process."});
  program->Add("system", &s->system, {.help = "System message."});
  s->request.Declare(program);
  program->Add("dtype", &s->cluster.dtype,
               {.help = "Of products, keys and values.", .choices = {"f32", "bf16"}});
  AddComputeOptions(/*note=*/"", &s->cluster.rank, program);
  program->Add("load_format", &s->cluster.load_format,
               {.help = "Where weights come from; dummy: random ones, for a folder that may hold a "
                        "config.json alone.",
                .choices = {"safetensors", "dummy"}});
  program->Add("data_dir", &s->cluster.data_dir,
               {.help = "Folder of the cache; empty: $XDG_DATA_HOME/troupe or ~/.local/share."});
  program->Add("output", &s->output,
               {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program->Add(
      "log_level", &s->log_level,
      {.help = "Least severity to log.", .choices = {"debug", "info", "warning", "error", "off"}});
  program->AddExample("troupe run --model models/abacus \"What is 4821 * 7306?\"");
  program->AddExample("troupe run --model models/abacus            # a chat; Ctrl-D leaves");
  program->AddExample("troupe run --target 127.0.0.1:7100 -o json \"What is 12 * 34?\"");
}

std::string FiguresLine(const v1::Usage& usage) {
  const double decode_s = static_cast<double>(usage.total_us() - usage.ttft_us()) / 1e6;
  const uint32_t decoded = usage.output_tokens() > 0 ? usage.output_tokens() - 1 : 0;
  const double skipped = usage.heads_total() == 0
                             ? 0
                             : 100.0 * static_cast<double>(usage.heads_skipped()) /
                                   static_cast<double>(usage.heads_total());
  return absl::StrFormat(
      "TTFT %.1f ms, %.0f tokens/s, %.1f %% of heads skipped, %d KV blocks reused",
      static_cast<double>(usage.ttft_us()) / 1e3, decode_s > 0 ? decoded / decode_s : 0, skipped,
      usage.kv_blocks_reused_local() + usage.kv_blocks_reused_cache());
}

// What a person reads: steps as they come, then the answer, then the figures.
class TextPrinter {
 public:
  void On(const v1::GenerateEvent& event) {
    if (event.has_step()) {
      std::cout << Dim(event.step().text()) << "\n" << std::flush;
      reasoning_ += event.step().text() + "\n";
    } else if (event.has_finished()) {
      answer_ = event.finished().answer();
      std::cout << answer_ << "\n" << std::flush;
      // On stderr, so that stdout is steps and answer alone.
      std::cerr << FiguresLine(event.finished().usage()) << "\n";
    }
  }
  const std::string& reasoning() const { return reasoning_; }
  const std::string& answer() const { return answer_; }

 private:
  std::string reasoning_;
  std::string answer_;
};

void PrintJson(const std::vector<std::string>& steps, const v1::Finished& finished) {
  const v1::Usage& usage = finished.usage();
  nlohmann::ordered_json json = {
      {"steps", steps},
      {"answer", finished.answer()},
      {"finish_reason", v1::Finished::Reason_Name(finished.reason())},
      {"prompt_tokens", usage.prompt_tokens()},
      {"output_tokens", usage.output_tokens()},
      {"cached_tokens", usage.cached_tokens()},
      {"kv_blocks_reused_local", usage.kv_blocks_reused_local()},
      {"kv_blocks_reused_cache", usage.kv_blocks_reused_cache()},
      {"heads_total", usage.heads_total()},
      {"heads_skipped", usage.heads_skipped()},
      {"ttft_us", usage.ttft_us()},
      {"total_us", usage.total_us()},
  };
  std::cout << json.dump(2) << "\n";
}

class Session {
 public:
  Session(const Settings& settings, const std::string& target, Interrupts* interrupts)
      : settings_(settings), client_(target), interrupts_(interrupts) {
    if (settings.system.empty()) return;
    v1::ChatMessage& message = *chat_.add_messages();
    message.set_role("system");
    message.set_content(settings.system);
  }

  // Asks, prints, and remembers the turn. An exit code.
  int Ask(const std::string& question) {
    v1::ChatMessage& asked = *chat_.add_messages();
    asked.set_role("user");
    asked.set_content(question);
    v1::GenerateRequest request;
    *request.mutable_chat() = chat_;
    settings_.request.Fill(request.mutable_options());

    TextPrinter printer;
    std::vector<std::string> steps;
    std::optional<v1::Finished> finished;
    CallCanceller canceller;
    interrupts_->SetTarget(&canceller);
    const bool text = settings_.output == "text";
    const absl::Status status =
        client_.Generate(request, {.canceller = &canceller}, [&](const v1::GenerateEvent& event) {
          if (text) printer.On(event);
          if (event.has_step()) steps.push_back(event.step().text());
          if (event.has_finished()) finished = event.finished();
        });
    interrupts_->SetTarget(nullptr);
    if (!status.ok()) {
      chat_.mutable_messages()->RemoveLast();
      std::cerr << "troupe run: " << status.message() << "\n";
      return canceller.cancelled() ? kExitInterrupted : kExitFailed;
    }
    if (!text && finished.has_value()) PrintJson(steps, *finished);
    v1::ChatMessage& answered = *chat_.add_messages();
    answered.set_role("assistant");
    answered.set_content(printer.answer());
    answered.set_reasoning_content(printer.reasoning());
    return 0;
  }

  int Chat() {
    const bool prompt = IsTerminal(STDIN_FILENO);
    if (prompt) std::cerr << "Ask; Ctrl-D leaves, Ctrl-C cancels an answer.\n";
    std::string line;
    int last = 0;
    while (true) {
      if (prompt) std::cerr << "> " << std::flush;
      if (!std::getline(std::cin, line)) break;
      if (!line.empty()) last = Ask(line);
    }
    if (prompt) std::cerr << "\n";
    return prompt ? 0 : last;
  }

 private:
  const Settings& settings_;
  GenerateClient client_;
  Interrupts* const interrupts_;
  v1::ChatMessages chat_;
};

}  // namespace

int RunCommand(int argc, char** argv) {
  Settings settings;
  settings.cluster.cache_optional = true;
  ProgramConfig program("troupe run", "Answers a question with a model, or chats with it.");
  Declare(&settings, &program);
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  SetLogLevel(ParseLogLevel(settings.log_level).value());
  if (settings.target.empty() == settings.cluster.model.empty()) {
    std::cerr << "troupe run: found " << (settings.target.empty() ? "neither" : "both")
              << " of --model and --target, wanted one of them\n";
    return kExitUsage;
  }
  if (const absl::Status checked = settings.request.Check(); !checked.ok()) {
    std::cerr << "troupe run: " << checked.message() << "\n";
    return kExitUsage;
  }

  Interrupts interrupts;
  std::unique_ptr<EmbeddedCluster> cluster;
  if (settings.target.empty()) {
    auto started = EmbeddedCluster::Start(settings.cluster, ProgressBar());
    if (!started.ok()) {
      std::cerr << "troupe run: " << started.status().message() << "\n";
      return kExitFailed;
    }
    cluster = *std::move(started);
    if (!cluster->cache_warning().empty()) {
      std::cerr << "troupe run: goes on without the cache: " << cluster->cache_warning() << "\n";
    }
  }
  Session session(settings, cluster == nullptr ? settings.target : cluster->target(), &interrupts);
  if (settings.question.empty()) return session.Chat();
  return session.Ask(absl::StrJoin(settings.question, " "));
}

}  // namespace troupe
