#include "base/gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace troupe {
namespace {

TEST(GateTest, CountsEntrantsAndRefusesAfterClose) {
  Gate gate;
  {
    std::optional<Gate::Pass> a = gate.Enter();
    std::optional<Gate::Pass> b = gate.Enter();
    ASSERT_TRUE(a.has_value() && b.has_value());
    EXPECT_EQ(gate.entrant_count(), 2);
    const Gate::Pass moved = *std::move(a);
    EXPECT_EQ(gate.entrant_count(), 2);
    gate.BeginClose();
    EXPECT_TRUE(gate.closed());
    EXPECT_FALSE(gate.Enter().has_value());
    EXPECT_EQ(gate.entrant_count(), 2);
  }
  EXPECT_EQ(gate.entrant_count(), 0);
  gate.Close();
  gate.Close();
}

TEST(GateTest, CloseWaitsForTheLastToLeave) {
  constexpr int kRounds = 50;
  constexpr int kThreads = 3;
  for (int round = 0; round < kRounds; ++round) {
    auto gate = std::make_unique<Gate>();
    std::atomic<int> inside = 0;
    std::atomic<int> entered = 0;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&inside, &entered, gate = gate.get()] {
        while (true) {
          const std::optional<Gate::Pass> pass = gate->Enter();
          if (!pass) return;
          ++inside;
          ++entered;
          std::this_thread::yield();
          --inside;
        }
      });
    }
    while (entered.load() < 10) std::this_thread::yield();
    gate->Close();
    EXPECT_EQ(inside.load(), 0);
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(GateDeathTest, DestroyingAnOccupiedGateIsABug) {
  EXPECT_DEATH(
      {
        auto gate = std::make_unique<Gate>();
        const std::optional<Gate::Pass> pass = gate->Enter();
        gate.reset();
      },
      "destroyed with somebody inside");
}

}  // namespace
}  // namespace troupe
