#include "base/actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/inbox.h"
#include "base/sim_executor.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;
constexpr absl::StatusCode kUnavailable = absl::StatusCode::kUnavailable;

// Does as it is told, and writes down everything that happens to it.
struct Say {
  std::string text;
};
struct SayAfter {
  absl::Duration delay;
  std::string text;
};
struct CancelLast {};
struct Quit {
  StopMode mode;
};
struct FailNow {
  absl::Status reason;
};
struct Watch1 {
  ActorRef<Say> target;
};
using ScriptMessage = std::variant<Say, SayAfter, CancelLast, Quit, FailNow, Watch1, Down>;
using Journal = std::vector<std::string>;

class Scripted : public Actor<ScriptMessage> {
 public:
  explicit Scripted(Journal* journal) : journal_(*journal) {}
  ~Scripted() override { journal_.push_back("destroyed"); }

 private:
  void OnStart() override { journal_.push_back("start"); }
  void OnStop(const absl::Status& reason) override {
    journal_.push_back(absl::StrCat("stop ", absl::StatusCodeToString(reason.code())));
  }
  void Handle(ScriptMessage message) override {
    std::visit(Overloaded{
                   [this](Say& say) { journal_.push_back(say.text); },
                   [this](SayAfter& say) { timer_ = TellAfter(say.delay, Say{say.text}); },
                   [this](CancelLast&) {
                     journal_.push_back(CancelTimer(timer_) ? "cancelled" : "too late");
                   },
                   [this](Quit& quit) { Stop(quit.mode); },
                   [this](FailNow& fail) { Fail(fail.reason); },
                   [this](Watch1& watch) { watch_ = Monitor(watch.target); },
                   [this](Down& down) {
                     journal_.push_back(absl::StrCat(down.name, " down: ", down.reason.message()));
                   },
               },
               message);
  }

  Journal& journal_;
  ActorTimerId timer_;
  Watch watch_;
};

// Most is tested in a simulation, where "until idle" says exactly when to look.
class ActorSimTest : public ::testing::Test {
 protected:
  ActorHandle<ScriptMessage> SpawnScripted(ActorOptions options = {.name = "scripted"}) {
    return Spawn<Scripted>(executor_, std::move(options), &journal_);
  }

  // The executor ends last what was not joined, so what actors write to stands before it.
  Journal journal_;
  Journal target_journal_;
  SimExecutor executor_{{.seed = 7}};
};

TEST_F(ActorSimTest, StartsHandlesInOrderDrainsAndIsDestroyed) {
  auto actor = SpawnScripted();
  for (const char* text : {"a", "b", "c"}) EXPECT_TRUE(actor.ref().Tell(Say{text}).ok());
  EXPECT_TRUE(actor.ref().alive());
  actor.Stop(StopMode::kDrain);
  EXPECT_EQ(actor.ref().Tell(Say{"late"}).code(), kUnavailable);
  EXPECT_THAT(journal_, IsEmpty()) << "nothing runs on the caller's thread";
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("start", "a", "b", "c", "stop OK", "destroyed"));
  EXPECT_FALSE(actor.ref().alive());
  EXPECT_EQ(actor.ref().Tell(Say{"late"}).code(), kUnavailable);
}

TEST_F(ActorSimTest, DrainStillTakesReplies) {
  auto actor = SpawnScripted();
  actor.Stop(StopMode::kDrain);
  EXPECT_TRUE(actor.ref().TellReply(Say{"answer"}).ok());
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("start", "answer", "stop OK", "destroyed"));
  EXPECT_EQ(actor.ref().TellReply(Say{"late"}).code(), kUnavailable);
}

TEST_F(ActorSimTest, DropDestroysWhatWaits) {
  auto actor = SpawnScripted();
  executor_.RunUntilIdle();
  EXPECT_TRUE(actor.ref().Tell(Say{"never"}).ok());
  actor.Stop(StopMode::kDrop);
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("start", "stop OK", "destroyed"));
}

TEST_F(ActorSimTest, DropOverridesDrain) {
  auto actor = SpawnScripted();
  executor_.RunUntilIdle();
  EXPECT_TRUE(actor.ref().Tell(Say{"never"}).ok());
  actor.Stop(StopMode::kDrain);
  actor.Stop(StopMode::kDrop);
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("start", "stop OK", "destroyed"));
}

TEST_F(ActorSimTest, StoppedBeforeItStartsHasNoHooksCalled) {
  auto actor = SpawnScripted();
  actor.Stop(StopMode::kDrop);
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("destroyed"));
}

TEST_F(ActorSimTest, DestroyingTheHandleStopsTheActor) {
  ActorRef<ScriptMessage> ref = SpawnScripted().ref();
  executor_.RunUntilIdle();
  EXPECT_FALSE(ref.alive());
  EXPECT_THAT(journal_, ElementsAre("destroyed"));
}

TEST_F(ActorSimTest, ReplacingAHandleStopsTheActorItHeld) {
  auto actor = SpawnScripted({.name = "first"});
  const ActorRef<ScriptMessage> first = actor.ref();
  actor = SpawnScripted({.name = "second"});
  executor_.RunUntilIdle();
  EXPECT_FALSE(first.alive());
  EXPECT_TRUE(actor.ref().alive());
  EXPECT_EQ(actor.ref().name(), "second");
}

TEST_F(ActorSimTest, AnActorStopsItself) {
  auto actor = SpawnScripted();
  EXPECT_TRUE(actor.ref().Tell(Quit{StopMode::kDrop}).ok());
  EXPECT_TRUE(actor.ref().Tell(Say{"never"}).ok());
  actor.Join();
  EXPECT_THAT(journal_, ElementsAre("start", "stop OK", "destroyed"));
}

TEST_F(ActorSimTest, AFullMailboxRefusesAndLeavesTheMessageAlone) {
  auto actor = SpawnScripted({.name = "small", .mailbox_capacity = 2});
  EXPECT_TRUE(actor.ref().Tell(Say{"1"}).ok());
  EXPECT_TRUE(actor.ref().Tell(Say{"2"}).ok());
  ScriptMessage third = Say{"3"};
  const absl::Status refused = actor.ref().Tell(std::move(third));
  EXPECT_EQ(refused.code(), kExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("small"));
  EXPECT_EQ(std::get<Say>(third).text, "3");  // NOLINT(bugprone-use-after-move): that is the point
  Say narrow{"4"};
  EXPECT_EQ(ActorRef<Say>(actor.ref()).Tell(std::move(narrow)).code(), kExhausted);
  EXPECT_EQ(narrow.text, "4");  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(actor.ref().TellReply(Say{"reply"}).ok()) << "replies are never refused for room";
  EXPECT_EQ(actor.ref().Tell(Say{"5"}).code(), kExhausted);

  executor_.RunUntilIdle();
  EXPECT_TRUE(actor.ref().Tell(std::move(third)).ok()) << "room again";
  executor_.RunUntilIdle();
  EXPECT_THAT(journal_, ElementsAre("start", "1", "2", "reply", "3"));
}

TEST_F(ActorSimTest, CapacityCountsWhatABatchHasTakenButNotHandled) {
  auto actor = SpawnScripted({.name = "small", .mailbox_capacity = 4, .batch = 1});
  for (const char* text : {"1", "2", "3", "4"}) EXPECT_TRUE(actor.ref().Tell(Say{text}).ok());
  ASSERT_TRUE(executor_.RunUntil([this] { return journal_.size() == 2; }));  // start, 1
  EXPECT_TRUE(actor.ref().Tell(Say{"5"}).ok());
  EXPECT_EQ(actor.ref().Tell(Say{"6"}).code(), kExhausted);
}

TEST_F(ActorSimTest, YieldsAfterABatch) {
  constexpr int kBatch = 3;
  auto busy = SpawnScripted({.name = "busy", .batch = kBatch});
  executor_.RunUntilIdle();
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(busy.ref().Tell(Say{"x"}).ok());
  size_t largest_run = 0;
  size_t seen = journal_.size();
  while (executor_.RunUntil([&] { return journal_.size() != seen; })) {
    largest_run = std::max(largest_run, journal_.size() - seen);
    seen = journal_.size();
  }
  EXPECT_EQ(largest_run, kBatch);
  EXPECT_EQ(journal_.size(), 101u);
}

TEST_F(ActorSimTest, TimersFireInOrderOfTimeThenOfSetting) {
  auto actor = SpawnScripted();
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(2), "c"}).ok());
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(1), "a"}).ok());
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(1), "b"}).ok());
  executor_.RunFor(absl::Seconds(2) - absl::Nanoseconds(1));
  EXPECT_THAT(journal_, ElementsAre("start", "a", "b"));
  executor_.RunFor(absl::Nanoseconds(1));
  EXPECT_THAT(journal_, ElementsAre("start", "a", "b", "c"));
}

TEST_F(ActorSimTest, ATimerIsCancelledOnceAndBeforeItFiresOnly) {
  auto actor = SpawnScripted();
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(1), "never"}).ok());
  EXPECT_TRUE(actor.ref().Tell(CancelLast{}).ok());
  EXPECT_TRUE(actor.ref().Tell(CancelLast{}).ok());
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(1), "fires"}).ok());
  executor_.RunFor(absl::Seconds(5));
  EXPECT_TRUE(actor.ref().Tell(CancelLast{}).ok());
  executor_.RunUntilIdle();
  EXPECT_THAT(journal_, ElementsAre("start", "cancelled", "too late", "fires", "too late"));
}

TEST_F(ActorSimTest, TimersDieWithTheirActor) {
  auto actor = SpawnScripted();
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Hours(1), "never"}).ok());
  actor.Stop(StopMode::kDrain);
  executor_.RunUntilIdle();
  EXPECT_EQ(executor_.clock().MonotonicNs(), 0) << "no timer was left to wait for";
  EXPECT_THAT(journal_, ElementsAre("start", "stop OK", "destroyed"));
}

TEST_F(ActorSimTest, ATimerFiresIntoAFullMailbox) {
  auto actor = SpawnScripted({.name = "small", .mailbox_capacity = 1});
  EXPECT_TRUE(actor.ref().Tell(SayAfter{absl::Seconds(1), "timer"}).ok());
  executor_.RunFor(absl::Milliseconds(1));
  bool filled = false;
  executor_.PostAfter(absl::Milliseconds(999) - absl::Nanoseconds(1), [&] {
    filled = actor.ref().Tell(SayAfter{absl::Seconds(9), "x"}).ok();
  });
  executor_.RunFor(absl::Seconds(1));
  EXPECT_TRUE(filled);
  EXPECT_THAT(journal_, ElementsAre("start", "timer"));
}

TEST_F(ActorSimTest, AWatcherIsToldOnceWhyItsTargetFailed) {
  auto target = Spawn<Scripted>(executor_, {.name = "target"}, &target_journal_);
  auto watcher = SpawnScripted();
  EXPECT_TRUE(watcher.ref().Tell(Watch1{target.ref()}).ok());
  executor_.RunUntilIdle();
  EXPECT_TRUE(target.ref().Tell(FailNow{absl::DataLossError("disk gone")}).ok());
  EXPECT_TRUE(target.ref().Tell(FailNow{absl::InternalError("never said")}).ok());
  executor_.RunUntilIdle();
  target.Stop(StopMode::kDrop);
  executor_.RunUntilIdle();
  EXPECT_THAT(target_journal_, ElementsAre("start", "stop DATA_LOSS", "destroyed"));
  EXPECT_THAT(journal_, ElementsAre("start", "target down: disk gone"));
}

TEST_F(ActorSimTest, WatchingTheDeadAndTheNullAnswersAtOnce) {
  auto target = Spawn<Scripted>(executor_, {.name = "target"}, &target_journal_);
  target.Stop(StopMode::kDrain);
  target.Join();
  auto watcher = SpawnScripted();
  EXPECT_TRUE(watcher.ref().Tell(Watch1{target.ref()}).ok());
  EXPECT_TRUE(watcher.ref().Tell(Watch1{}).ok());
  executor_.RunUntilIdle();
  EXPECT_THAT(journal_,
              ElementsAre("start", "target down: ", "null down: no actor: null reference"));
}

TEST_F(ActorSimTest, ADeathNoticeReachesAFullMailbox) {
  auto target = Spawn<Scripted>(executor_, {.name = "target"}, &target_journal_);
  auto watcher = SpawnScripted({.name = "small", .mailbox_capacity = 1});
  Watch watch = target.ref().Monitor([&](const Down&) {  // Fills it just before the watcher hears.
    EXPECT_TRUE(watcher.ref().Tell(Say{"full"}).ok());
    EXPECT_EQ(watcher.ref().Tell(Say{"over"}).code(), kExhausted);
  });
  EXPECT_TRUE(watcher.ref().Tell(Watch1{target.ref()}).ok());
  executor_.RunUntilIdle();
  target.Stop(StopMode::kDrop);
  executor_.RunUntilIdle();
  EXPECT_THAT(journal_, ElementsAre("start", "full", "target down: "));
}

TEST_F(ActorSimTest, ReferencesCompareByActor) {
  auto a = SpawnScripted();
  auto b = SpawnScripted();
  EXPECT_EQ(a.ref(), ActorRef<ScriptMessage>(a.ref()));
  EXPECT_NE(a.ref(), b.ref());
  EXPECT_EQ(ActorRef<Say>(a.ref()), ActorRef<Say>(a.ref())) << "narrowed twice, still one actor";
  EXPECT_FALSE(ActorRef<Say>());
  EXPECT_EQ(ActorRef<Say>().Tell(Say{"x"}).code(), kUnavailable);
  EXPECT_FALSE(ActorRef<Say>(ActorRef<ScriptMessage>())) << "null stays null";
}

// An actor that owns another: the child ends with its parent.
class Parent : public Actor<int> {
 public:
  Parent(Journal* journal, ActorRef<ScriptMessage>* child) : journal_(journal), child_ref_(child) {}

 private:
  void OnStart() override {
    child_ = Spawn<Scripted>(executor(), {.name = name() + "/child"}, journal_);
    *child_ref_ = child_.ref();
  }
  void Handle(int) override {}

  Journal* const journal_;
  ActorRef<ScriptMessage>* const child_ref_;
  ActorHandle<ScriptMessage> child_;
};

TEST_F(ActorSimTest, ChildrenEndWithTheirParent) {
  ActorRef<ScriptMessage> child;
  auto parent = Spawn<Parent>(executor_, {.name = "parent"}, &journal_, &child);
  executor_.RunUntilIdle();
  EXPECT_EQ(child.name(), "parent/child");
  EXPECT_TRUE(child.alive());
  parent.Stop(StopMode::kDrop);
  executor_.RunUntilIdle();
  EXPECT_FALSE(child.alive());
}

class Dropper : public Actor<std::unique_ptr<int>> {
  void Handle(std::unique_ptr<int>) override {}
};

TEST_F(ActorSimTest, MessagesMayBeMoveOnly) {
  auto actor = Spawn<Dropper>(executor_, {.name = "dropper", .mailbox_capacity = 1});
  EXPECT_TRUE(actor.ref().Tell(std::make_unique<int>(1)).ok());
  auto second = std::make_unique<int>(2);
  EXPECT_EQ(actor.ref().Tell(std::move(second)).code(), kExhausted);
  EXPECT_NE(second, nullptr);  // NOLINT(bugprone-use-after-move): refused, so not moved
}

TEST(ActorDeathTest, JoinFromATaskOfTheSameExecutorIsABug) {
  const auto wait_for_itself = [] {
    Journal journal;
    SimExecutor executor({});
    auto actor = Spawn<Scripted>(executor, {.name = "self-waiter"}, &journal);
    executor.Post([&] { actor.Join(); });
    executor.RunUntilIdle();
  };
  EXPECT_DEATH(wait_for_itself(), "Join of actor self-waiter would block");
}

TEST(ActorDeathTest, JoiningWhatNobodyStopsIsABugInASimulation) {
  Journal journal;
  SimExecutor executor({.seed = 41});
  auto actor = Spawn<Scripted>(executor, {.name = "immortal"}, &journal);
  EXPECT_DEATH(actor.Join(), "seed 41 came to rest before");
}

TEST(ActorThreadTest, ShutDownExecutorEndsActorsThatNobodyStopped) {
  Journal journal;
  ThreadExecutor executor({});
  auto actor = Spawn<Scripted>(executor, {.name = "left over"}, &journal);
  const auto downs = Inbox<Down>::Create("downs", 1);
  Watch watch =
      actor.ref().Monitor([&](Down down) { EXPECT_TRUE(downs->ref().Tell(std::move(down)).ok()); });
  executor.Shutdown();
  EXPECT_THAT(journal, ElementsAre("start"));
  EXPECT_TRUE(actor.ref().alive());
  actor.ref().Tell(Say{"too late"}).IgnoreError();  // Finds out that nobody will run it.
  EXPECT_FALSE(actor.ref().alive());
  actor.Join();
  EXPECT_THAT(journal, ElementsAre("start", "stop UNAVAILABLE", "destroyed"));
  EXPECT_EQ(downs->Receive(absl::ZeroDuration())->reason.code(), kUnavailable);
}

TEST(ActorThreadTest, ANoticeTakenBackIsNotDelivered) {
  Journal journal;
  ThreadExecutor executor({});
  auto actor = Spawn<Scripted>(executor, {.name = "actor"}, &journal);
  int kept_count = 0;
  int dropped_count = 0;
  Watch kept = actor.ref().Monitor([&](const Down&) { ++kept_count; });
  Watch dropped = actor.ref().Monitor([&](const Down&) { ++dropped_count; });
  dropped.Cancel();
  actor.Stop(StopMode::kDrain);
  actor.Join();
  EXPECT_EQ(kept_count, 1);
  EXPECT_EQ(dropped_count, 0);
}

}  // namespace
}  // namespace troupe
