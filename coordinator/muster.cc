#include "coordinator/muster.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace troupe {
namespace {

constexpr size_t kMaxWorkerName = 256;

// "cuda" of "cuda:3".
absl::string_view KindOf(absl::string_view device) { return device.substr(0, device.find(':')); }

ReplicaMember MemberOf(const MusteredWorker& worker) {
  const v1::RegisterWorkerRequest& request = worker.request;
  return {request.worker(), request.address(), request.node(), request.device()};
}

}  // namespace

absl::Status Muster::Check(const v1::RegisterWorkerRequest& request) const {
  if (request.worker().empty() || request.worker().size() > kMaxWorkerName) {
    return absl::InvalidArgumentError(absl::StrCat("worker: found a name of ",
                                                   request.worker().size(), " bytes, wanted 1 to ",
                                                   kMaxWorkerName));
  }
  if (request.address().empty()) {
    return absl::InvalidArgumentError("address: found none, wanted host:port or unix:PATH");
  }
  if (ranks_ > 1 && !request.takes_assignment()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", request.worker(), " has loaded the whole model; replicas here have ", ranks_,
        " ranks: start it with --sharded, so that it takes the rank it is given"));
  }
  const auto found = workers_.find(request.worker());
  if (found == workers_.end()) return absl::OkStatus();
  const MusteredWorker& known = found->second;
  const bool other = known.request.incarnation() != request.incarnation() &&
                     known.request.address() != request.address();
  if (!known.replica.empty() && other) {
    return absl::AlreadyExistsError(absl::StrCat("worker ", request.worker(), " is live at ",
                                                 known.request.address(), "; give the worker at ",
                                                 request.address(), " another name"));
  }
  return absl::OkStatus();
}

Muster::Heard Muster::Take(const v1::RegisterWorkerRequest& request, int64_t now_us) {
  MusteredWorker& worker = workers_[request.worker()];
  worker.heard_us = now_us;
  if (!worker.replica.empty()) {
    // What its session was begun with stays until that is over.
    const bool same = worker.request.incarnation() == request.incarnation();
    return same ? Heard::kAgain : Heard::kRestarted;
  }
  worker.lost = false;
  worker.request = request;
  return Heard::kAgain;
}

std::vector<ReplicaMember> Muster::NextReplica() const {
  // A replica's ranks are of one kind; the fullest machines come first, so that it spans few.
  std::map<absl::string_view, std::map<absl::string_view, std::vector<const MusteredWorker*>>> idle;
  for (const auto& [name, worker] : workers_) {
    if (!worker.idle()) continue;
    idle[KindOf(worker.request.device())][worker.request.node()].push_back(&worker);
  }
  for (const auto& [kind, nodes] : idle) {
    std::vector<const std::vector<const MusteredWorker*>*> by_size;
    for (const auto& [node, workers] : nodes) by_size.push_back(&workers);
    std::stable_sort(by_size.begin(), by_size.end(),
                     [](const auto* a, const auto* b) { return a->size() > b->size(); });
    std::vector<ReplicaMember> members;
    for (const auto* workers : by_size) {
      for (const MusteredWorker* worker : *workers) {
        members.push_back(MemberOf(*worker));
        if (members.size() == ranks_) return members;
      }
    }
  }
  return {};
}

void Muster::Release(const std::string& replica, const std::string& culprit) {
  for (auto& [name, worker] : workers_) {
    if (worker.replica != replica) continue;
    worker.replica.clear();
    worker.lost = culprit.empty() || culprit == name;
  }
}

void Muster::Forget(int64_t since_us) {
  std::erase_if(workers_, [since_us](const auto& entry) {
    return entry.second.replica.empty() && entry.second.heard_us < since_us;
  });
}

std::string Muster::Wanting() const {
  std::vector<absl::string_view> here;
  for (const auto& [name, worker] : workers_) {
    if (worker.idle()) here.push_back(name);
  }
  if (here.empty() || ranks_ == 1) return "";
  if (here.size() >= ranks_) {
    return absl::StrCat("the ", here.size(), " workers that wait (", absl::StrJoin(here, ", "),
                        ") are not of one kind of device; a replica has ", ranks_, " ranks");
  }
  return absl::StrCat(here.size(), " of ", ranks_, " ranks are here (", absl::StrJoin(here, ", "),
                      "); start ", ranks_ - here.size(), " more");
}

void Muster::Describe(const std::string& problem, v1::ClusterStatus& status) const {
  const std::string wanting = Wanting();
  for (const auto& [name, worker] : workers_) {
    if (!worker.replica.empty()) continue;
    v1::WorkerStatus& out = *status.add_workers();
    out.set_worker(name);
    out.set_address(worker.request.address());
    out.set_epoch(worker.epoch);
    out.set_state(worker.idle() ? v1::WorkerStatus::STATE_WAITING : v1::WorkerStatus::STATE_LOST);
    if (worker.idle()) out.set_problem(problem.empty() ? wanting : problem);
  }
}

int64_t LeastMemoryBytes(const std::vector<v1::RegisterWorkerRequest>& ranks) {
  // A machine has what the first one there found, before the others took of it.
  std::map<std::pair<std::string, std::string>, std::pair<int64_t, int64_t>> machines;
  for (const v1::RegisterWorkerRequest& rank : ranks) {
    auto& [memory, count] = machines[{rank.node(), rank.device()}];
    const auto found = static_cast<int64_t>(rank.memory_bytes());
    if (found == 0) return 0;
    memory = std::max(memory, found);
    ++count;
  }
  int64_t least = 0;
  for (const auto& [machine, held] : machines) {
    const int64_t each = held.first / held.second;
    least = least == 0 ? each : std::min(least, each);
  }
  return least;
}

}  // namespace troupe
