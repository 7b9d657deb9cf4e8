#include "coordinator/scheduler/urgency_list.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "coordinator/scheduler/live_sequence.h"

namespace troupe {
namespace {

TEST(UrgencyList, KeepsTheOrderOfAMap) {
  std::mt19937 random(7);
  std::vector<LiveSequence> sequences(500);
  UrgencyList list;
  using Key = std::tuple<int64_t, int64_t, uint64_t>;
  std::map<Key, LiveSequence*> expected;
  const auto key = [](const Urgency& u) { return Key(u.due_us, u.arrival_us, u.id); };
  for (uint64_t id = 0; id < sequences.size(); ++id) {
    // Ties in time are common, so that ids must decide.
    sequences[id].urgency = {static_cast<int64_t>(random() % 40),
                             static_cast<int64_t>(random() % 3), id};
  }
  for (int step = 0; step < 200; ++step) {
    for (LiveSequence& s : sequences) {
      if (random() % 20 != 0) continue;
      if (expected.erase(key(s.urgency)) != 0) list.Remove(s.urgency);
    }
    EXPECT_EQ(list.size(), expected.size());
    for (LiveSequence& s : sequences) {
      if (random() % 20 == 0 && expected.emplace(key(s.urgency), &s).second) {
        list.Add(s.urgency, &s);
      }
    }
    EXPECT_EQ(list.size(), expected.size());
    list.Settle();
    ASSERT_EQ(list.places(), expected.size()) << "step " << step;
    size_t place = 0;
    for (const auto& [unused, s] : expected) ASSERT_EQ(list.at(place++), s) << "step " << step;
  }
}

TEST(UrgencyList, RemovedOnesLeaveTheOthersInPlace) {
  std::vector<LiveSequence> sequences(3);
  UrgencyList list;
  for (uint64_t i = 0; i < 3; ++i) {
    sequences[i].urgency = {0, 0, i};
    list.Add(sequences[i].urgency, &sequences[i]);
  }
  list.Settle();
  list.Remove(sequences[1].urgency);
  EXPECT_EQ(list.size(), 2u);
  ASSERT_EQ(list.places(), 3u);
  EXPECT_EQ(list.at(0), &sequences[0]);
  EXPECT_EQ(list.at(1), nullptr);
  EXPECT_EQ(list.at(2), &sequences[2]);
}

}  // namespace
}  // namespace troupe
