#include "coordinator/testing/sim_worker.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/check.h"

namespace troupe::testing {

v1::WorkerInfo SmallWorkerInfo(const std::string& name) {
  v1::WorkerInfo info;
  info.set_worker(name);
  info.set_model("fake");
  info.set_identity(std::string(32, 'i'));
  info.set_block_tokens(16);
  info.set_max_rows(32);
  info.set_max_step_tokens(256);
  info.set_max_context(2000);
  info.set_heads_per_token(8);
  info.set_default_gate_threshold(0.25f);
  v1::KvGroup& full = *info.add_groups();
  full.set_name("full");
  full.set_kind(v1::KvGroup::KIND_FULL);
  full.set_page_bytes(1000);
  full.set_page_count(200);
  v1::KvGroup& window = *info.add_groups();
  window.set_name("window");
  window.set_kind(v1::KvGroup::KIND_WINDOW);
  window.set_window_tokens(40);
  window.set_page_bytes(1000);
  window.set_page_count(200);
  return info;
}

// The worker's end of a session. Steps run one after the other, each after a random delay.
class SimMachine::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(SimMachine* machine, v1::Hello hello, ActorRef<SchedulerMessage> owner)
      : machine_(machine),
        hello_(std::move(hello)),
        owner_(std::move(owner)),
        worker_(machine->config_.worker, ReplicaInfo::From(machine->info_).value(), hello_.epoch(),
                *machine->cache_, static_cast<uint32_t>(machine->executor_->random()())) {}

  void Start() {
    if (hello_.has_assignment()) {
      After([](Session& session) { session.Load(); });
    } else {
      After([](Session& session) { session.Announce(); });
    }
  }

  // Every member's contribution in rank order, or something is wrong.
  void Meet(const v1::Meeting& meeting) {
    if (silent_) return;
    const v1::Layout& layout = hello_.assignment().map().layout();
    EXPECT_EQ(meeting.contributions_size(),
              static_cast<int>(layout.tp() * layout.dp() * layout.pp()));
    for (int rank = 0; rank < meeting.contributions_size(); ++rank) {
      EXPECT_EQ(meeting.contributions(rank), absl::StrCat("I am rank ", rank));
    }
    EXPECT_TRUE(std::exchange(handed_in_, false)) << "a meeting before this rank's part";
    After([](Session& session) { session.Announce(); });
  }

  void Accept(const v1::StepPlan& plan) {
    if (silent_ || machine_->frozen_) return;
    const int homes = plan.home_tokens_size();
    if (homes > 0) {
      const v1::Layout& layout = hello_.assignment().map().layout();
      EXPECT_EQ(homes, static_cast<int>(layout.dp()));
      uint32_t tokens = 0;
      for (const uint32_t count : plan.row_count()) tokens += count;
      EXPECT_EQ(plan.home_tokens(rank() / static_cast<int>(layout.tp()) % homes), tokens);
    }
    worker_.Accept(plan);
    if (!std::exchange(running_, true)) RunNext();
  }

  void End(absl::Status status) {
    if (std::exchange(silent_, true)) return;
    (void)owner_.TellReply(LinkDown{rank(), std::move(status)});
  }

  void AnnounceAgain() {
    After([](Session& session) { session.Announce(); });
  }
  void FallSilent() { silent_ = true; }

 private:
  void After(std::function<void(Session&)> then) {
    machine_->executor_->PostAfter(machine_->Delay(),
                                   [weak = weak_from_this(), then = std::move(then)] {
                                     const std::shared_ptr<Session> session = weak.lock();
                                     if (session != nullptr && !session->silent_) then(*session);
                                   });
  }

  void RunNext() {
    After([](Session& session) {
      if (session.machine_->frozen_) return;
      (void)session.owner_.TellReply(StepDone{session.rank(), session.worker_.Run()});
      session.running_ = session.worker_.has_steps();
      if (session.running_) session.RunNext();
    });
  }

  int rank() const { return static_cast<int>(hello_.assignment().rank()); }

  void Announce() { (void)owner_.TellReply(LinkUp{rank(), machine_->info_}); }

  void Load() {
    if (machine_->frozen_) return;
    v1::Loading loading;
    loading.set_what("weights");
    loading.set_bytes_total(10);
    loading.set_bytes_done(loaded_);
    (void)owner_.TellReply(RankLoading{rank(), std::move(loading)});
    if (++loaded_ <= 3) return After([](Session& session) { session.Load(); });
    handed_in_ = true;
    (void)owner_.TellReply(RankContribution{rank(), absl::StrCat("I am rank ", rank())});
  }

  SimMachine* const machine_;
  const v1::Hello hello_;
  const ActorRef<SchedulerMessage> owner_;
  FakeWorker worker_;
  uint32_t loaded_ = 0;
  bool handed_in_ = false;
  bool running_ = false;
  bool silent_ = false;
};

class SimMachine::Link final : public WorkerLink {
 public:
  explicit Link(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  ~Link() override { session_->End(absl::CancelledError("the coordinator ended the session")); }
  void Send(v1::StepPlan plan) override { session_->Accept(plan); }
  void Send(v1::Meeting meeting) override { session_->Meet(meeting); }

 private:
  const std::shared_ptr<Session> session_;
};

namespace {

class NoLink final : public WorkerLink {
 public:
  void Send(v1::StepPlan /*plan*/) override { CHECK(false) << "a plan before LinkUp"; }
  void Send(v1::Meeting /*meeting*/) override { CHECK(false) << "a meeting without this rank"; }
};

}  // namespace

SimMachine::SimMachine(const Config& config, v1::WorkerInfo info, std::string address,
                       SimExecutor* executor, FakeCache* cache)
    : config_(config),
      info_(std::move(info)),
      address_(std::move(address)),
      executor_(executor),
      cache_(cache) {}

SimMachine::~SimMachine() = default;

absl::Duration SimMachine::Delay() {
  return absl::Microseconds(executor_->random().Below(config_.max_delay_us + 1));
}

void SimMachine::Start(const ActorRef<FleetMessage>& fleet) {
  on_ = true;
  frozen_ = false;
  Announce(fleet, ++incarnation_);
}

void SimMachine::Kill() {
  on_ = false;
  ++incarnation_;
  for (const std::weak_ptr<Session>& weak : std::exchange(live_, {})) {
    if (const auto session = weak.lock()) session->End(absl::UnavailableError("connection reset"));
  }
}

void SimMachine::RestartSilently(const ActorRef<FleetMessage>& fleet) {
  for (const std::weak_ptr<Session>& weak : std::exchange(live_, {})) {
    if (const auto session = weak.lock()) session->FallSilent();
  }
  Start(fleet);
}

void SimMachine::Freeze() { frozen_ = true; }

void SimMachine::AnnounceAgainInSession() {
  for (const std::weak_ptr<Session>& weak : live_) {
    if (const auto session = weak.lock()) session->AnnounceAgain();
  }
}

void SimMachine::Announce(const ActorRef<FleetMessage>& fleet, uint64_t incarnation) {
  if (incarnation != incarnation_) return;
  v1::RegisterWorkerRequest request;
  request.set_worker(info_.worker());
  request.set_address(address_);
  request.set_incarnation(incarnation);
  request.set_takes_assignment(config_.takes_assignment);
  request.set_node(absl::StrCat("node of ", address_));
  request.set_device("cpu");
  (void)fleet.Tell(RegisterWorker{std::move(request), [](const auto& /*reply*/) {}});
  executor_->PostAfter(absl::Microseconds(config_.heartbeat_us),
                       [this, fleet, incarnation] { Announce(fleet, incarnation); });
}

std::unique_ptr<WorkerLink> SimMachine::Connect(const v1::Hello& hello,
                                                ActorRef<SchedulerMessage> owner) {
  if (!on_) {
    const int rank = static_cast<int>(hello.assignment().rank());
    executor_->PostAfter(Delay(), [owner = std::move(owner), rank] {
      (void)owner.TellReply(LinkDown{rank, absl::UnavailableError("connection refused")});
    });
    return std::make_unique<NoLink>();
  }
  ++sessions_;
  auto session = std::make_shared<Session>(this, hello, std::move(owner));
  live_.push_back(session);
  session->Start();
  return std::make_unique<Link>(std::move(session));
}

SimMachine& SimNetwork::Add(const SimMachine::Config& config, v1::WorkerInfo info,
                            FakeCache* cache) {
  machines_.push_back(std::make_unique<SimMachine>(
      config, std::move(info), absl::StrCat("sim:", machines_.size()), executor_, cache));
  return *machines_.back();
}

WorkerLinkFactory SimNetwork::Factory() {
  return [this](const std::string& address, const v1::Hello& hello,
                ActorRef<SchedulerMessage> owner) -> std::unique_ptr<WorkerLink> {
    for (const auto& machine : machines_) {
      if (machine->address() == address) return machine->Connect(hello, std::move(owner));
    }
    CHECK(false) << "nobody has the address " << address;
    return nullptr;
  };
}

}  // namespace troupe::testing
