// Sessions with all ranks of a replica, and calls to single ones. See sim_rank.h.

#include <gtest/gtest.h>

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/reshard/map_proto.h"
#include "coordinator/testing/sim_rank.h"

namespace troupe::testing {
namespace {

// One session of a replica: each rank computes every step, one after the other.
class ReplicaSession : public std::enable_shared_from_this<ReplicaSession> {
 public:
  ReplicaSession(SimRanks* ranks, const v1::Hello& hello, ActorRef<SchedulerMessage> owner,
                 std::shared_ptr<const bool> alive)
      : ranks_(ranks),
        map_(hello.assignment().map()),
        owner_(std::move(owner)),
        alive_(std::move(alive)) {
    const ReplicaInfo info = ReplicaInfo::From(ranks->config().info).value();
    for (int r = 0; r < map_.members_size(); ++r) {
      workers_.push_back(std::make_unique<FakeWorker>(ranks->config().worker, info, hello.epoch(),
                                                      cache_, /*seed=*/1));
    }
  }

  void Start() {
    for (int r = 0; r < map_.members_size(); ++r) {
      auto told = std::make_shared<std::function<void()>>(
          [weak = weak_from_this(), name = Name(r)] {
            if (const auto self = weak.lock()) {
              self->End(absl::UnavailableError("connection reset"), name);
            }
          });
      on_kill_.push_back(told);
      ranks_->at(Name(r)).OnKill(told);
      After(ranks_->Delay(), [r](ReplicaSession& session) { session.Hello(r); });
    }
  }

  void Accept(const v1::StepPlan& plan) {
    if (ended_ || !*alive_) return;
    for (const auto& worker : workers_) worker->Accept(plan);
    if (!std::exchange(running_, true)) RunNext();
  }

  void End(absl::Status status, const std::string& worker) {
    if (std::exchange(ended_, true)) return;
    (void)owner_.TellReply(LinkDown{std::move(status), worker});
  }

 private:
  const std::string& Name(int r) const { return map_.members(r).worker(); }

  void After(absl::Duration delay, std::function<void(ReplicaSession&)> then) {
    ranks_->executor().PostAfter(delay, [weak = weak_from_this(), then = std::move(then)] {
      const std::shared_ptr<ReplicaSession> self = weak.lock();
      if (self != nullptr && !self->ended_) then(*self);
    });
  }

  void Hello(int r) {
    ranks_->Event(absl::StrCat(Name(r), " is greeted"));
    if (ended_) return;
    if (!ranks_->at(Name(r)).Holds(map_, r)) {
      End(absl::FailedPreconditionError(
              absl::StrCat("rank ", r, " does not hold map ", map_.epoch())),
          Name(r));
      return;
    }
    if (++greeted_ == map_.members_size()) (void)owner_.TellReply(LinkUp{ranks_->config().info});
  }

  void RunNext() {
    After(absl::Microseconds(ranks_->config().step_us) + ranks_->Delay(),
          [](ReplicaSession& session) { session.Run(); });
  }

  void Run() {
    std::optional<v1::StepResult> result;
    for (int r = 0; r < map_.members_size(); ++r) {
      EXPECT_TRUE(ranks_->at(Name(r)).Holds(map_, r))
          << Name(r) << " computes with map " << map_.epoch() << " and does not hold it";
      v1::StepResult mine = workers_[r]->Run();
      if (result.has_value()) {
        EXPECT_EQ(result->SerializeAsString(), mine.SerializeAsString()) << "ranks disagree";
      }
      result = std::move(mine);
    }
    ranks_->OnStep(map_.epoch());
    if (ended_) return;
    (void)owner_.TellReply(StepDone{*std::move(result)});
    running_ = workers_[0]->has_steps();
    if (running_) RunNext();
  }

  SimRanks* const ranks_;
  const v1::ShardMap map_;
  const ActorRef<SchedulerMessage> owner_;
  const std::shared_ptr<const bool> alive_;
  FakeCache cache_;  // stays empty
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::vector<std::shared_ptr<std::function<void()>>> on_kill_;
  int greeted_ = 0;
  bool running_ = false;
  bool ended_ = false;
};

class ReplicaLink final : public WorkerLink {
 public:
  explicit ReplicaLink(std::shared_ptr<ReplicaSession> session) : session_(std::move(session)) {}
  ~ReplicaLink() override {
    session_->End(absl::CancelledError("the coordinator ended the session"), "");
  }
  void Send(v1::StepPlan plan) override { session_->Accept(plan); }

 private:
  const std::shared_ptr<ReplicaSession> session_;
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
  return [this, alive](const std::string& /*address*/, const v1::Hello& hello,
                       ActorRef<SchedulerMessage> owner) -> std::unique_ptr<WorkerLink> {
    CHECK(hello.has_assignment());
    auto session = std::make_shared<ReplicaSession>(this, hello, std::move(owner), alive);
    if (*alive) session->Start();
    return std::make_unique<ReplicaLink>(std::move(session));
  };
}

std::unique_ptr<RankControl> SimRanks::Control(std::shared_ptr<const bool> alive) {
  return std::make_unique<SimControl>(this, std::move(alive));
}

}  // namespace troupe::testing
