// troupe reshard: what another layout of a replica would move, and the change itself.

#include <iostream>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/generate_client.h"
#include "cli/json_print.h"
#include "config/program_config.h"
#include "sharding/layout_rules.h"

namespace troupe {
namespace {

struct Settings {
  std::string target = "127.0.0.1:7100";
  std::string to;
  bool plan = false;
  bool apply = false;
  bool by_load = false;
  uint32_t deadline_s = 600;
  std::string output = "text";
};

double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string RankName(int32_t rank) { return rank < 0 ? "-" : absl::StrCat(rank); }

void PrintPlan(const v1::ReshardPlan& plan) {
  std::cout << absl::StrFormat("from %s (epoch %d) to %s (epoch %d), about %.1f s\n", plan.from(),
                               plan.from_epoch(), plan.to(), plan.to_epoch(), plan.seconds());
  std::cout << absl::StrFormat("%-16s %5s %5s %10s %10s %10s %10s %10s %8s\n", "worker", "from",
                               "to", "keeps", "peers", "disk", "drops", "peak", "seconds");
  for (const v1::RankMove& rank : plan.ranks()) {
    std::cout << absl::StrFormat("%-16s %5s %5s %10.1f %10.1f %10.1f %10.1f %10.1f %8.2f\n",
                                 rank.worker(), RankName(rank.from_rank()),
                                 RankName(rank.to_rank()), MiB(rank.keep_bytes()),
                                 MiB(rank.peer_bytes()), MiB(rank.disk_bytes()),
                                 MiB(rank.drop_bytes()), MiB(rank.peak_bytes()), rank.seconds());
  }
  for (const v1::RankMove& rank : plan.ranks()) {
    for (const v1::PeerRead& read : rank.reads()) {
      std::cout << absl::StrFormat("%s reads %.1f from %s\n", rank.worker(), MiB(read.bytes()),
                                   read.worker());
    }
  }
  if (plan.has_balance_before() && plan.has_balance_after()) {
    std::cout << absl::StrFormat(
        "experts: the busiest rank computes %.2f times the mean (worst layer %.2f), then %.2f "
        "(%.2f)\n",
        plan.balance_before().mean(), plan.balance_before().worst(), plan.balance_after().mean(),
        plan.balance_after().worst());
  }
  if (plan.layers_left() > 0) {
    std::cout << plan.layers_left() << " more layers would gain, and do not fit beside these\n";
  }
  std::cout << "sizes in MiB; peak: both layouts, activations and one longest sequence\n";
}

void PrintEvent(const v1::ReshardEvent& event) {
  if (event.has_plan()) PrintPlan(event.plan());
  if (event.has_progress()) {
    const v1::ReshardProgress& progress = event.progress();
    std::cout << absl::StrFormat("%s: %d of %d ranks prepared, %.1f of %.1f MiB\n",
                                 progress.phase(), progress.ranks_prepared(), progress.ranks(),
                                 MiB(progress.bytes_done()), MiB(progress.bytes_total()));
  }
  if (event.has_outcome()) {
    const v1::ReshardOutcome& outcome = event.outcome();
    std::cout << absl::StrFormat(
        "done: epoch %d serves; prepared in %.2f s, switched in %.3f s; %.1f MiB read from peers, "
        "%.1f MiB from disk\n",
        outcome.epoch(), static_cast<double>(outcome.prepare_us()) / 1e6,
        static_cast<double>(outcome.switch_us()) / 1e6, MiB(outcome.peer_bytes()),
        MiB(outcome.disk_bytes()));
  }
  std::cout << std::flush;
}

int Fail(const Settings& settings, const absl::Status& status) {
  std::cerr << "troupe reshard: " << settings.target << ": " << status.message() << "\n";
  return kExitFailed;
}

}  // namespace

int ReshardCommand(int argc, char** argv) {
  Settings settings;
  ProgramConfig program("troupe reshard",
                        "Shows what another layout would move, and changes to it while serving.");
  program.Add("target", &settings.target, {.help = "The server's address."});
  program.Add("to", &settings.to,
              {.help = "The layout to have: \"tp2 dp2 pp1 ep +8\"; what is left out is 1."});
  program.Add("by_load", &settings.by_load,
              {.help = "Place experts after the tokens that each received of late, with copies of "
                       "hot ones as the layout says; without --to the layout stays."});
  program.Add("plan", &settings.plan, {.help = "Only show what would move (the default)."});
  program.Add("apply", &settings.apply, {.help = "Change to it."});
  program.Add("deadline_s", &settings.deadline_s,
              {.help = "To be prepared; later the change is rolled back.", .unit = "s", .min = 1});
  program.Add("output", &settings.output,
              {.help = "How to print.", .choices = {"text", "json"}, .short_flag = "-o"});
  program.AddExample("troupe reshard --to \"dp4 ep\" --plan");
  program.AddExample("troupe reshard --to \"dp4 ep\" --apply --deadline-s 120");
  program.AddExample("troupe reshard --to \"dp4 ep +8\" --by-load --apply");
  if (std::optional<int> exit_code = program.ParseMain(argc, argv)) return *exit_code;
  const absl::StatusOr<Layout> layout = ParseLayout(settings.to);
  const bool stays = settings.to.empty() && settings.by_load;
  if (settings.to.empty() && !settings.by_load) {
    std::cerr << "troupe reshard: found neither --to nor --by-load, wanted a layout, or experts "
                 "placed by load\n";
    return kExitUsage;
  }
  if ((!stays && !layout.ok()) || (settings.plan && settings.apply)) {
    std::cerr << "troupe reshard: "
              << (stays || layout.ok() ? "found both --plan and --apply, wanted one of them"
                                       : layout.status().message())
              << "\n";
    return kExitUsage;
  }
  v1::ReshardRequest request;
  if (!stays) {
    request.mutable_layout()->set_tp(layout->tp);
    request.mutable_layout()->set_dp(layout->dp);
    request.mutable_layout()->set_pp(layout->pp);
    request.mutable_layout()->set_expert_parallel(layout->expert_parallel);
    request.mutable_layout()->set_redundant_experts(layout->redundant_experts);
  }
  request.set_by_load(settings.by_load);
  request.set_apply(settings.apply);
  request.set_deadline_ms(settings.deadline_s * 1000);
  const absl::Status status =
      GenerateClient(settings.target).Reshard(request, [&](const v1::ReshardEvent& event) {
        if (settings.output == "json") {
          std::cout << ToJson(event) << std::endl;
        } else {
          PrintEvent(event);
        }
      });
  return status.ok() ? 0 : Fail(settings, status);
}

}  // namespace troupe
