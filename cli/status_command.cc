// troupe status: what a running server does.

#include <iostream>
#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/generate_client.h"
#include "cli/json_print.h"
#include "config/program_config.h"

namespace troupe {
namespace {

struct Settings {
  std::string target = "127.0.0.1:7100";
  std::string output = "text";
};

const char* StateName(v1::WorkerStatus::State state) {
  switch (state) {
    case v1::WorkerStatus::STATE_CONNECTING:
      return "connecting";
    case v1::WorkerStatus::STATE_READY:
      return "ready";
    case v1::WorkerStatus::STATE_LOST:
      return "lost";
    case v1::WorkerStatus::STATE_WAITING:
      return "waiting";
    case v1::WorkerStatus::STATE_SPARE:
      return "spare, has no place in the layout";
    case v1::WorkerStatus::STATE_STUCK:
      return "stuck";
    default:
      return "unknown";
  }
}

const char* StateName(v1::RankStatus::State state) {
  switch (state) {
    case v1::RankStatus::STATE_CONNECTING:
      return "connecting";
    case v1::RankStatus::STATE_LOADING:
      return "loading";
    case v1::RankStatus::STATE_MEETING:
      return "meeting the others";
    case v1::RankStatus::STATE_READY:
      return "ready";
    default:
      return "unknown";
  }
}

void PrintRank(const v1::RankStatus& rank) {
  std::cout << absl::StrFormat("  rank %d: worker %s at %s (%s, %s): %s", rank.rank(),
                               rank.worker(), rank.address(), rank.node(), rank.device(),
                               StateName(rank.state()));
  if (rank.state() == v1::RankStatus::STATE_LOADING && rank.loading().bytes_total() > 0) {
    std::cout << absl::StrFormat(" %s, %.0f %%", rank.loading().what(),
                                 100.0 * static_cast<double>(rank.loading().bytes_done()) /
                                     static_cast<double>(rank.loading().bytes_total()));
  }
  std::cout << absl::StrFormat("; %d steps, heard %.1f s ago\n", rank.steps(),
                               static_cast<double>(rank.silent_us()) / 1e6);
}

void PrintWorker(const v1::WorkerStatus& worker) {
  std::cout << absl::StrFormat("worker %s at %s: %s\n", worker.worker(), worker.address(),
                               StateName(worker.state()));
  if (!worker.problem().empty()) std::cout << "  " << worker.problem() << "\n";
  for (const v1::RankStatus& rank : worker.ranks()) PrintRank(rank);
  if (worker.state() != v1::WorkerStatus::STATE_READY) return;
  std::cout << absl::StrFormat(
      "  %d running, %d waiting; %d steps, %d tokens generated, %d prompt tokens computed, %d "
      "reused, %d tokens kept over changes; %d preemptions\n",
      worker.running(), worker.waiting(), worker.steps(), worker.tokens_generated(),
      worker.prompt_tokens_computed(), worker.prompt_tokens_reused(), worker.tokens_kept(),
      worker.preemptions());
  const double steps = worker.steps() == 0 ? 1 : static_cast<double>(worker.steps());
  std::cout << absl::StrFormat(
      "  a step: scheduler %.1f us, forward %.1f us; blocks: %d loaded, %d stored\n",
      static_cast<double>(worker.plan_ns_total()) / 1e3 / steps,
      static_cast<double>(worker.forward_us_total()) / steps, worker.blocks_loaded(),
      worker.blocks_stored());
  if (worker.blocks_spilled() > 0) {
    const double fills = std::max<double>(1, static_cast<double>(worker.blocks_filled()));
    std::cout << absl::StrFormat(
        "  host memory: %d blocks spilled, %.1f MB; %d filled, %.1f MB, each %.1f ms after it was "
        "asked for\n",
        worker.blocks_spilled(), static_cast<double>(worker.bytes_spilled()) / 1e6,
        worker.blocks_filled(), static_cast<double>(worker.bytes_filled()) / 1e6,
        static_cast<double>(worker.fill_us_total()) / 1e3 / fills);
  }
  if (worker.has_expert_balance()) {
    const v1::ExpertBalance& balance = worker.expert_balance();
    std::cout << absl::StrFormat(
        "  experts: the busiest rank computes %.2f times the mean, %.2f in layer %d, the worst\n",
        balance.mean(), balance.worst(), balance.worst_layer());
  }
  for (const v1::GroupStatus& group : worker.groups()) {
    std::cout << absl::StrFormat("  pages %-14s %6d used, %6d cached, %6d in all", group.name(),
                                 group.pages_used(), group.pages_cached(), group.pages_total());
    if (group.host_pages_total() > 0) {
      std::cout << absl::StrFormat("; %6d of %6d in host memory", group.host_pages_cached(),
                                   group.host_pages_total());
    }
    std::cout << "\n";
  }
}

void PrintText(const v1::ClusterStatus& status) {
  std::cout << absl::StrFormat("troupe %s, model %s, up %.0f s, %s\n", status.version(),
                               status.model(), static_cast<double>(status.uptime_us()) / 1e6,
                               status.ready() ? "ready" : "no worker is ready");
  std::cout << absl::StrFormat("requests: %d accepted, %d finished, %d failed, %d cancelled\n",
                               status.requests_accepted(), status.requests_finished(),
                               status.requests_failed(), status.requests_cancelled());
  for (const v1::WorkerStatus& worker : status.workers()) PrintWorker(worker);
  for (const v1::TenantStatus& tenant : status.tenants()) {
    std::cout << absl::StrFormat("tenant %s: %d running, %d waiting, %d tokens served\n",
                                 tenant.tenant(), tenant.running(), tenant.waiting(),
                                 tenant.tokens_served());
  }
}

}  // namespace

int StatusCommand(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe status", "Shows what a running server does.");
  program.Add("target", &settings.target, {.help = "The server's address."});
  program.Add("output", &settings.output,
              {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program.AddExample("troupe status");
  program.AddExample("troupe status --target 127.0.0.1:7100 -o json");
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  auto status = GenerateClient(settings.target).GetStatus();
  if (!status.ok()) {
    std::cerr << "troupe status: " << settings.target << ": " << status.status().message() << "\n";
    return kExitFailed;
  }
  if (settings.output == "json") {
    std::cout << ToJson(*status) << "\n";
  } else {
    PrintText(*status);
  }
  return 0;
}

}  // namespace troupe
