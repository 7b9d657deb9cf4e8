// Actors under many threads: what the sanitizers and a race would find.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "base/actor.h"
#include "base/check.h"
#include "base/inbox.h"
#include "base/thread_executor.h"

namespace troupe {
namespace {

struct Item {
  int sender;
  int number;
};

// Checks that each sender's items come in order, one at a time.
class OrderChecker : public Actor<Item> {
 public:
  OrderChecker(int sender_count, std::atomic<int>* handled_count)
      : next_(sender_count), handled_count_(*handled_count) {}

 private:
  void Handle(Item item) override {
    CHECK(!inside_.exchange(true)) << "two threads in one actor";
    CHECK_EQ(item.number, next_[item.sender]);
    ++next_[item.sender];
    handled_count_.fetch_add(1, std::memory_order_relaxed);
    inside_.store(false);
  }

  std::vector<int> next_;
  std::atomic<bool> inside_ = false;
  std::atomic<int>& handled_count_;
};

TEST(ActorStressTest, EachSendersOrderHoldsUnderBackPressure) {
  constexpr int kSenders = 4;
  constexpr int kItems = 5000;
  std::atomic<int> handled_count = 0;
  std::atomic<int> refused_count = 0;
  ThreadExecutor executor({.thread_count = 3});
  auto checker = Spawn<OrderChecker>(
      executor, {.name = "checker", .mailbox_capacity = 8, .batch = 3}, kSenders, &handled_count);
  std::vector<std::thread> senders;
  senders.reserve(kSenders);
  for (int sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&, sender] {
      for (int i = 0; i < kItems; ++i) {
        while (true) {
          const absl::Status told = checker.ref().Tell(Item{sender, i});
          if (told.ok()) break;
          CHECK(told.code() == absl::StatusCode::kResourceExhausted) << told;
          refused_count.fetch_add(1, std::memory_order_relaxed);
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& sender : senders) sender.join();
  checker.Stop(StopMode::kDrain);
  checker.Join();
  EXPECT_EQ(handled_count.load(), kSenders * kItems);
  EXPECT_GT(refused_count.load(), 0) << "the mailbox was never full, so nothing was tried";
}

// Counts itself, so that a leaked or doubly destroyed message shows.
class Counted {
 public:
  explicit Counted(std::atomic<int>* alive) : alive_(alive) { alive_->fetch_add(1); }
  Counted(Counted&& other) noexcept : alive_(other.alive_) { alive_->fetch_add(1); }
  Counted& operator=(Counted&&) noexcept = default;
  ~Counted() { alive_->fetch_sub(1); }

 private:
  std::atomic<int>* alive_;
};

struct Hop {
  Counted token;
  int hops_left;
};

// Passes hops round a ring, and sets timers for itself that seldom have time to fire.
class RingMember : public Actor<std::variant<Hop, ActorRef<Hop>>> {
  void Handle(Message message) override {
    if (auto* next = std::get_if<ActorRef<Hop>>(&message)) {
      next_ = *next;
      return;
    }
    Hop& hop = std::get<Hop>(message);
    if (hop.hops_left % 16 == 0) {
      TellAfter(absl::Microseconds(hop.hops_left % 64), Hop{std::move(hop.token), 3});
    } else if (hop.hops_left > 0) {
      next_.Tell(Hop{std::move(hop.token), hop.hops_left - 1}).IgnoreError();
    }
  }

  ActorRef<Hop> next_;
};

TEST(ActorStressTest, StoppingAtAnyMomentLeaksNothingAndTellsEveryWatcherOnce) {
  constexpr int kRounds = 60;
  constexpr int kMembers = 5;
  std::atomic<int> alive = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::atomic<int> notice_count = 0;
    ThreadExecutor executor({.thread_count = 3});
    std::vector<ActorHandle<RingMember::Message>> ring;
    std::vector<Watch> watches;
    for (int i = 0; i < kMembers; ++i) {
      ring.push_back(Spawn<RingMember>(executor, {.name = "member", .mailbox_capacity = 32}));
      watches.push_back(ring[i].ref().Monitor([&](const Down&) { ++notice_count; }));
    }
    for (int i = 0; i < kMembers; ++i) {
      CHECK_OK(ring[i].ref().Tell(ActorRef<Hop>(ring[(i + 1) % kMembers].ref())));
    }
    for (int i = 0; i < 200; ++i) {
      ring[i % kMembers].ref().Tell(Hop{Counted(&alive), 100 + i}).IgnoreError();
    }
    std::thread other([&] {
      for (auto& member : ring) member.Stop(StopMode::kDrain);
    });
    for (auto& member : ring) member.Stop(round % 2 == 0 ? StopMode::kDrop : StopMode::kDrain);
    other.join();
    for (auto& member : ring) member.Join();
    EXPECT_EQ(notice_count.load(), kMembers);
    ring.clear();
    executor.Shutdown();
    EXPECT_EQ(alive.load(), 0);
  }
}

// Monitors and takes back while the target dies.
TEST(ActorStressTest, WatchingRacesWithDeath) {
  constexpr int kRounds = 200;
  constexpr int kWatchers = 2;
  for (int round = 0; round < kRounds; ++round) {
    const std::shared_ptr<Lifetime> lifetime = Lifetime::Create("target");
    std::atomic<int> told_count = 0;
    std::atomic<int> kept_count = 0;
    std::vector<std::thread> watchers;
    watchers.reserve(kWatchers);
    for (int i = 0; i < kWatchers; ++i) {
      watchers.emplace_back([&] {
        std::vector<Watch> watches;
        for (int j = 0; j < 20; ++j) {
          watches.push_back(lifetime->Monitor([&](const Down&) { ++told_count; }));
          ++kept_count;
          Watch dropped = lifetime->Monitor([](const Down&) {});
        }
        while (!lifetime->ended()) std::this_thread::yield();
        // Kept until the end has begun; what is taken back from here on may still arrive.
        while (told_count.load() < kept_count.load()) std::this_thread::yield();
      });
    }
    lifetime->End(absl::OkStatus());
    for (std::thread& watcher : watchers) watcher.join();
    EXPECT_EQ(told_count.load(), kept_count.load());
  }
}

}  // namespace
}  // namespace troupe
