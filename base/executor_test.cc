#include "base/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "base/actor.h"
#include "base/inbox.h"
#include "base/sim_executor.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

TEST(ThreadExecutorTest, RunsTasksAndKnowsItself) {
  ThreadExecutor executor({.thread_count = 2});
  const auto seen = Inbox<const Executor*>::Create("seen", 1);
  EXPECT_TRUE(executor.Post([&] { seen->ref().Tell(Executor::Current()).IgnoreError(); }));
  EXPECT_EQ(seen->Receive(absl::InfiniteDuration()), &executor);
  EXPECT_EQ(Executor::Current(), nullptr);
}

TEST(ThreadExecutorTest, ShutdownRunsWhatIsQueuedAndWhatThatPosts) {
  std::atomic<int> ran_count = 0;
  auto executor = std::make_unique<ThreadExecutor>(ThreadExecutor::Options{.thread_count = 2});
  for (int i = 0; i < 100; ++i) {
    executor->Post([&] {
      ++ran_count;
      executor->Post([&] { ++ran_count; });
    });
  }
  const auto token = std::make_shared<int>(0);
  executor->PostAfter(absl::Hours(1), [token, &ran_count] { ++ran_count; });
  executor->Shutdown();
  EXPECT_EQ(ran_count.load(), 200);
  EXPECT_EQ(token.use_count(), 1) << "the timer is dropped";
  EXPECT_FALSE(executor->Post([] {}));
  EXPECT_EQ(executor->PostAfter(absl::ZeroDuration(), [] {}), TimerId());
  executor.reset();
}

TEST(ThreadExecutorTest, TimersFireInOrderAndNotEarly) {
  ThreadExecutor executor({.thread_count = 2});
  const auto fired = Inbox<int>::Create("fired", 8);
  const int64_t start_ns = executor.clock().MonotonicNs();
  const auto tell = [&](int value) {
    return [fired, value] { fired->ref().Tell(value).IgnoreError(); };
  };
  executor.PostAfter(absl::InfiniteDuration(), tell(9));
  executor.PostAfter(-absl::Seconds(1), tell(0));
  executor.PostAfter(absl::Milliseconds(10), tell(1));
  executor.PostAfter(absl::Milliseconds(10), tell(2));
  executor.PostAfter(absl::Milliseconds(20), tell(3));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(fired->Receive(absl::InfiniteDuration()), i);
  EXPECT_GE(executor.clock().MonotonicNs() - start_ns, 20'000'000);
}

TEST(ThreadExecutorTest, ACancelledTimerDoesNotFire) {
  ThreadExecutor executor({});
  const auto fired = Inbox<int>::Create("fired", 8);
  const TimerId never =
      executor.PostAfter(absl::Hours(1), [fired] { fired->ref().Tell(1).IgnoreError(); });
  EXPECT_TRUE(executor.Cancel(never));
  EXPECT_FALSE(executor.Cancel(never));
  EXPECT_FALSE(executor.Cancel(TimerId()));
  const TimerId soon =
      executor.PostAfter(absl::ZeroDuration(), [fired] { fired->ref().Tell(2).IgnoreError(); });
  EXPECT_EQ(fired->Receive(absl::InfiniteDuration()), 2);
  EXPECT_FALSE(executor.Cancel(soon));
}

TEST(SimExecutorTest, TheClockJumpsToTimersOnly) {
  SimExecutor executor({});
  const absl::Time start = executor.clock().Now();
  std::vector<int64_t> fired_s;
  const auto note = [&] { fired_s.push_back((executor.clock().Now() - start) / absl::Seconds(1)); };
  executor.PostAfter(absl::Hours(1), note);
  executor.PostAfter(absl::Seconds(5), [&] {
    note();
    executor.PostAfter(absl::Seconds(5), note);
  });
  executor.Post(note);
  executor.RunUntilIdle();
  EXPECT_THAT(fired_s, ElementsAre(0, 5, 10, 3600));
  executor.RunFor(absl::Seconds(1));
  EXPECT_EQ(executor.clock().Now() - start, absl::Seconds(3601));
}

TEST(SimExecutorTest, RunUntilStopsAtOnceOrSaysThatItCannot) {
  SimExecutor executor({});
  int count = 0;
  for (int i = 0; i < 5; ++i) executor.Post([&] { ++count; });
  EXPECT_TRUE(executor.RunUntil([&] { return count == 2; }));
  EXPECT_EQ(count, 2);
  EXPECT_FALSE(executor.RunUntil([&] { return count == 6; }));
  EXPECT_EQ(count, 5);
}

TEST(SimExecutorDeathTest, NamesTheSeedOfARunThatNeverRests) {
  SimExecutor executor({.seed = 77, .max_steps = 1000});
  std::function<void()> again = [&] { executor.PostAfter(absl::Seconds(1), again); };
  executor.Post(again);
  EXPECT_DEATH(executor.RunUntilIdle(), "seed 77 does not come to rest");
}

// A small world with every source of disorder: workers that answer after random delays, a client
// that asks again on a timeout, and a worker that dies.
struct Work {
  int number;
  ActorRef<int> reply_to;
};

class Worker : public Actor<std::variant<Work, int>> {
 public:
  Worker(SimExecutor* sim, int lifetime_works) : sim_(*sim), works_left_(lifetime_works) {}

 private:
  void Handle(Message message) override {
    if (const int* number = std::get_if<int>(&message)) {
      reply_to_.TellReply(int{*number}).IgnoreError();
      return;
    }
    if (--works_left_ == 0) return Fail(absl::InternalError("worn out"));
    const Work& work = std::get<Work>(message);
    reply_to_ = work.reply_to;
    TellAfter(absl::Milliseconds(sim_.random().Below(20)), work.number);
  }

  SimExecutor& sim_;
  int works_left_;
  ActorRef<int> reply_to_;
};

class Client : public Actor<std::variant<int, Down>> {
 public:
  Client(std::vector<ActorRef<Work>> workers, std::vector<int>* answers)
      : workers_(std::move(workers)), answers_(*answers) {}

 private:
  void OnStart() override {
    for (const ActorRef<Work>& worker : workers_) watches_.push_back(Monitor(worker));
    for (int i = 0; i < 40; ++i) {
      workers_[i % workers_.size()].Tell(Work{i, ActorRef<int>(self())}).IgnoreError();
    }
  }
  void Handle(Message message) override {
    answers_.push_back(std::holds_alternative<Down>(message) ? -1 : std::get<int>(message));
  }

  const std::vector<ActorRef<Work>> workers_;
  std::vector<int>& answers_;
  std::vector<Watch> watches_;
};

struct Outcome {
  uint64_t trace_hash;
  std::vector<int> answers;
  bool operator==(const Outcome&) const = default;
};

Outcome Simulate(uint64_t seed) {
  Outcome outcome;
  SimExecutor executor({.seed = seed});
  std::vector<ActorHandle<Worker::Message>> workers;
  std::vector<ActorRef<Work>> refs;
  for (int i = 0; i < 4; ++i) {
    workers.push_back(
        Spawn<Worker>(executor, {.name = "worker", .batch = 2}, &executor, i == 0 ? 5 : 1000));
    refs.emplace_back(workers.back().ref());
  }
  auto client = Spawn<Client>(executor, {.name = "client"}, refs, &outcome.answers);
  executor.RunUntilIdle();
  outcome.trace_hash = executor.trace_hash();
  return outcome;
}

TEST(SimExecutorTest, OneSeedIsOneRunAndAnotherSeedIsAnother) {
  constexpr int kSeeds = 50;
  std::vector<Outcome> outcomes;
  int differing_answers_count = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    outcomes.push_back(Simulate(seed));
    EXPECT_EQ(outcomes.back(), Simulate(seed)) << "seed " << seed;
    EXPECT_EQ(std::count(outcomes.back().answers.begin(), outcomes.back().answers.end(), -1), 1);
    for (uint64_t other = 0; other < seed; ++other) {
      EXPECT_NE(outcomes[other].trace_hash, outcomes[seed].trace_hash) << other << " and " << seed;
      differing_answers_count += outcomes[other].answers != outcomes[seed].answers ? 1 : 0;
    }
  }
  EXPECT_EQ(differing_answers_count, kSeeds * (kSeeds - 1) / 2);
}

TEST(SimExecutorTest, EveryOrderOfThreeTasksComesUp) {
  std::map<std::string, int> counts;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    std::string order;
    SimExecutor executor({.seed = seed});
    for (const char* name : {"a", "b", "c"}) executor.Post([&order, name] { order += name; });
    executor.RunUntilIdle();
    ++counts[order];
  }
  EXPECT_EQ(counts.size(), 6u);
  for (const auto& [order, count] : counts) EXPECT_GT(count, 60) << order;
}

TEST(SimExecutorTest, WhatATestNotesIsPartOfTheTrace) {
  SimExecutor a({});
  SimExecutor b({});
  EXPECT_EQ(a.trace_hash(), b.trace_hash());
  a.Note(1);
  b.Note(2);
  EXPECT_NE(a.trace_hash(), b.trace_hash());
}

}  // namespace
}  // namespace troupe
