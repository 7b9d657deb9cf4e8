// Sessions with all ranks of a replica, and calls to single ones. See sim_rank.h.

#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/testing/sim_rank.h"

namespace troupe::testing {
namespace {

// One rank's session: it is greeted, meets the others, and computes its home's plans.
class RankSession : public std::enable_shared_from_this<RankSession> {
 public:
  RankSession(SimRanks* ranks, const v1::Hello& hello, ActorRef<SchedulerMessage> owner,
              std::shared_ptr<const bool> alive)
      : ranks_(ranks),
        map_(hello.assignment().map()),
        rank_(static_cast<int>(hello.assignment().rank())),
        machine_(&ranks->at(map_.members(rank_).worker())),
        owner_(std::move(owner)),
        alive_(std::move(alive)),
        epoch_(hello.epoch()) {}

  void Start() {
    on_kill_ = std::make_shared<std::function<void()>>([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self != nullptr) self->End(absl::UnavailableError("connection reset"));
    });
    machine_->OnKill(on_kill_);
    After(ranks_->Delay(), [](RankSession& session) { session.Hello(); });
  }

  void Meet(const v1::Meeting& meeting) {
    if (ended_ || !*alive_) return;
    EXPECT_EQ(meeting.contributions_size(), map_.members_size());
    After(ranks_->Delay(), [](RankSession& session) {
      SimPages& pages = session.machine_->TakePages(session.map_, session.rank_, session.epoch_);
      session.worker_ = pages.worker;
      v1::WorkerInfo info = session.ranks_->config().info;
      info.set_kept_epoch(pages.written_epoch);
      info.set_kept_home(static_cast<uint32_t>(pages.written_home));
      (void)session.owner_.TellReply(LinkUp{session.rank_, std::move(info)});
    });
  }

  void Accept(const v1::StepPlan& plan) {
    if (ended_ || !*alive_) return;
    machine_->OnWritten(epoch_);
    worker_->Accept(plan);
    if (!std::exchange(running_, true)) RunNext();
  }

  void End(absl::Status status) {
    if (std::exchange(ended_, true)) return;
    (void)owner_.TellReply(LinkDown{rank_, std::move(status)});
  }

 private:
  void After(absl::Duration delay, std::function<void(RankSession&)> then) {
    ranks_->executor().PostAfter(delay, [weak = weak_from_this(), then = std::move(then)] {
      const std::shared_ptr<RankSession> self = weak.lock();
      if (self != nullptr && !self->ended_) then(*self);
    });
  }

  void Hello() {
    ranks_->Event(absl::StrCat(machine_->name(), " is greeted"));
    if (ended_) return;
    if (!machine_->Holds(map_, rank_)) {
      End(absl::FailedPreconditionError(absl::StrCat("does not hold map ", map_.epoch())));
      return;
    }
    (void)owner_.TellReply(RankContribution{rank_, machine_->name()});
  }

  void RunNext() {
    After(absl::Microseconds(ranks_->config().step_us) + ranks_->Delay(),
          [](RankSession& session) { session.Run(); });
  }

  void Run() {
    EXPECT_TRUE(machine_->Holds(map_, rank_))
        << machine_->name() << " computes with map " << map_.epoch() << " and does not hold it";
    v1::StepResult result = worker_->Run();
    const std::vector<uint32_t>& experts = ranks_->config().expert_tokens;
    result.mutable_expert_tokens()->Assign(experts.begin(), experts.end());
    ranks_->OnStep(map_.epoch());
    if (ended_) return;
    (void)owner_.TellReply(StepDone{rank_, std::move(result)});
    running_ = worker_->has_steps();
    if (running_) RunNext();
  }

  SimRanks* const ranks_;
  const v1::ShardMap map_;
  const int rank_;
  SimRank* const machine_;
  const ActorRef<SchedulerMessage> owner_;
  const std::shared_ptr<const bool> alive_;
  const uint64_t epoch_;
  std::shared_ptr<FakeWorker> worker_;  // from the meeting on
  std::shared_ptr<std::function<void()>> on_kill_;
  bool running_ = false;
  bool ended_ = false;
};

class RankLink final : public WorkerLink {
 public:
  explicit RankLink(std::shared_ptr<RankSession> session) : session_(std::move(session)) {}
  ~RankLink() override { session_->End(absl::CancelledError("the coordinator ended the session")); }
  void Send(v1::StepPlan plan) override { session_->Accept(plan); }
  void Send(v1::Meeting meeting) override { session_->Meet(meeting); }

 private:
  const std::shared_ptr<RankSession> session_;
};

class SimControl final : public RankControl {
 public:
  SimControl(SimRanks* ranks, std::shared_ptr<const bool> alive)
      : ranks_(ranks), alive_(std::move(alive)) {}

  std::unique_ptr<Call> Prepare(const v1::RankMember& rank, const v1::PrepareShardRequest& request,
                                ActorRef<ReshardMessage> owner) override {
    if (!*alive_) return nullptr;
    return ranks_->at(rank.worker()).Prepare(request, std::move(owner));
  }

  void Retire(const v1::RankMember& rank, uint64_t keep_epoch, uint64_t epoch,
              ActorRef<ReshardMessage> owner) override {
    if (!*alive_) return;
    ranks_->at(rank.worker()).Retire(keep_epoch, epoch, std::move(owner));
  }

 private:
  SimRanks* const ranks_;
  const std::shared_ptr<const bool> alive_;
};

}  // namespace

WorkerLinkFactory SimRanks::Links(std::shared_ptr<const bool> alive) {
  return [this, alive = std::move(alive)](
             const std::string& /*address*/, const v1::Hello& hello,
             ActorRef<SchedulerMessage> owner) -> std::unique_ptr<WorkerLink> {
    CHECK(hello.has_assignment());
    auto session = std::make_shared<RankSession>(this, hello, std::move(owner), alive);
    if (*alive) session->Start();
    return std::make_unique<RankLink>(std::move(session));
  };
}

std::unique_ptr<RankControl> SimRanks::Control(std::shared_ptr<const bool> alive) {
  return std::make_unique<SimControl>(this, std::move(alive));
}

}  // namespace troupe::testing
