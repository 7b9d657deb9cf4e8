// One table of cases for every implementation of Communicator that runs without a GPU. Members are
// threads of this process.
#include "worker/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "worker/gloo_communicator.h"
#include "worker/in_process_communicator.h"
#include "worker/testing/local_meeting.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

using Members = std::vector<std::unique_ptr<Communicator>>;

struct Kind {
  std::string name;
  std::function<Members(int size, absl::Duration timeout)> make;
};

Members InProcess(int size, absl::Duration timeout) {
  const std::vector<Ops*> nobody(size, nullptr);
  return MakeInProcessCommunicators(nobody, {.timeout = timeout});
}

Members Gloo(int size, absl::Duration timeout) {
  auto place = std::make_shared<testing::LocalMeetingPlace>(size);
  Members members(size);
  std::vector<std::thread> threads;
  threads.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      testing::LocalMeeting meeting(place, rank);
      auto made = MakeGlooCommunicator({.rank = rank, .size = size, .timeout = timeout}, meeting,
                                       /*ops=*/nullptr);
      EXPECT_TRUE(made.ok()) << made.status();
      if (made.ok()) members[rank] = *std::move(made);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return members;
}

class CommunicatorTest : public ::testing::TestWithParam<Kind> {
 protected:
  Members Make(int size, absl::Duration timeout = absl::Seconds(60)) {
    return GetParam().make(size, timeout);
  }

  // Runs `body` in a thread a member; a member whose thread is done is destroyed when all are.
  static void Run(Members& members, const std::function<void(Communicator&)>& body) {
    std::vector<std::thread> threads;
    for (auto& member : members) {
      if (member != nullptr) threads.emplace_back([&body, &member] { body(*member); });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

// Values whose sum depends on the order.
std::vector<float> Values(int rank, int64_t count, uint32_t seed) {
  std::mt19937 random(seed * 1000 + rank);
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<float> values(count);
  for (float& value : values) value = std::ldexp(mantissa(random), exponent(random));
  return values;
}

std::vector<float> SumInRankOrder(int size, int64_t count, uint32_t seed) {
  std::vector<float> sum = Values(0, count, seed);
  for (int r = 1; r < size; ++r) {
    const std::vector<float> more = Values(r, count, seed);
    for (int64_t i = 0; i < count; ++i) sum[i] += more[i];
  }
  return sum;
}

TEST_P(CommunicatorTest, SumsInRankOrderWhateverTheSize) {
  for (const int size : {1, 2, 3, 4, 8}) {
    Members members = Make(size);
    Run(members, [&](Communicator& member) {
      for (const int64_t count : {0, 1, 2, 7, 64, 1000, 4099, 70'000}) {
        const auto seed = static_cast<uint32_t>(count + size);
        std::vector<float> values = Values(member.rank(), count, seed);
        member.AllReduceSum(values.data(), count);
        EXPECT_EQ(values, SumInRankOrder(size, count, seed)) << size << " members, " << count;
      }
      EXPECT_EQ(member.size(), size);
      EXPECT_TRUE(member.status().ok()) << member.status();
    });
  }
}

TEST_P(CommunicatorTest, GathersInRankOrder) {
  Members members = Make(4);
  Run(members, [](Communicator& member) {
    for (const int64_t bytes : {0, 1, 5, 4096, 300'001}) {
      std::string all(4 * bytes, '?');
      std::string wanted;
      for (char r = 0; r < 4; ++r) wanted.append(bytes, static_cast<char>('a' + r));
      const std::string mine(bytes, static_cast<char>('a' + member.rank()));
      member.AllGather(mine.data(), bytes, all.data());
      EXPECT_EQ(all, wanted);
      // In place.
      all.assign(4 * bytes, '?');
      std::memcpy(all.data() + member.rank() * bytes, mine.data(), bytes);
      member.AllGather(all.data() + member.rank() * bytes, bytes, all.data());
      EXPECT_EQ(all, wanted);
    }
  });
}

// From member a to member b go a * 1000 + b numbers, none where a + b is 3.
int64_t Count(int from, int to) { return from + to == 3 ? 0 : from * 1000 + to; }

TEST_P(CommunicatorTest, ExchangesPartsOfAnySize) {
  Members members = Make(4);
  Run(members, [](Communicator& member) {
    for (int round = 0; round < 3; ++round) {
      std::vector<std::vector<int>> sent(4);
      std::vector<std::vector<int>> received(4);
      std::vector<CommBytes> to(4);
      std::vector<CommBytes> from(4);
      const int me = member.rank();
      for (int r = 0; r < 4; ++r) {
        sent[r].resize(Count(me, r));
        std::iota(sent[r].begin(), sent[r].end(), round + me * 7 + r);
        received[r].resize(Count(r, me));
        to[r] = {sent[r].data(), static_cast<int64_t>(sent[r].size() * sizeof(int))};
        from[r] = {received[r].data(), static_cast<int64_t>(received[r].size() * sizeof(int))};
      }
      member.AllToAll(to, from);
      for (int r = 0; r < 4; ++r) {
        std::vector<int> wanted(Count(r, me));
        std::iota(wanted.begin(), wanted.end(), round + r * 7 + me);
        EXPECT_EQ(received[r], wanted) << r << " to " << me;
      }
    }
  });
}

TEST_P(CommunicatorTest, PassesAlongAPipeline) {
  Members members = Make(3);
  Run(members, [](Communicator& member) {
    for (int batch = 0; batch < 20; ++batch) {
      std::vector<int> numbers(1 + batch * 999, batch);
      if (member.rank() > 0) {
        std::vector<int> got(numbers.size());
        member.Receive(member.rank() - 1, got.data(), static_cast<int64_t>(got.size()) * 4);
        for (int& n : numbers) n += member.rank() - 1;
        EXPECT_EQ(got, numbers);
        for (int& n : numbers) ++n;
      }
      if (member.rank() < 2) {
        member.Send(member.rank() + 1, numbers.data(), static_cast<int64_t>(numbers.size()) * 4);
      }
    }
  });
}

TEST_P(CommunicatorTest, SplitsByColourAndAgain) {
  Members members = Make(4);
  Run(members, [](Communicator& member) {
    auto pair = member.Split(member.rank() / 2);
    auto stride = member.Split(member.rank() % 2);
    ASSERT_TRUE(pair.ok() && stride.ok());
    EXPECT_EQ((*pair)->size(), 2);
    EXPECT_EQ((*pair)->rank(), member.rank() % 2);
    EXPECT_EQ((*stride)->rank(), member.rank() / 2);
    for (int round = 0; round < 10; ++round) {
      float value = static_cast<float>(1 << member.rank());
      (*pair)->AllReduceSum(&value, 1);
      EXPECT_EQ(value, member.rank() < 2 ? 3 : 12);
      (*stride)->AllReduceSum(&value, 1);
      EXPECT_EQ(value, 15);
      member.AllReduceSum(&value, 1);
      EXPECT_EQ(value, 60);
    }
    auto alone = (*pair)->Split(member.rank());
    ASSERT_TRUE(alone.ok());
    float value = 5;
    (*alone)->AllReduceSum(&value, 1);
    EXPECT_EQ(value, 5);
  });
}

TEST_P(CommunicatorTest, NobodyPassesABarrierAlone) {
  Members members = Make(4);
  std::atomic<int> came = 0;
  Run(members, [&](Communicator& member) {
    for (int round = 1; round <= 50; ++round) {
      ++came;
      member.Barrier();
      EXPECT_GE(came.load(), 4 * round);
      member.Barrier();
    }
  });
}

TEST_P(CommunicatorTest, NamesTheMemberThatDoesNotCome) {
  Members members = Make(4, absl::Milliseconds(300));
  const absl::Time start = absl::Now();
  std::atomic<bool> others_done = false;
  std::atomic<int> done = 0;
  Run(members, [&](Communicator& member) {
    float value = 1;
    member.AllReduceSum(&value, 1);
    if (member.rank() == 2) {
      while (!others_done) std::this_thread::yield();
      return;
    }
    member.AllReduceSum(&value, 1);
    EXPECT_THAT(std::string(member.status().message()), HasSubstr("rank 2"));
    EXPECT_TRUE(absl::IsDeadlineExceeded(member.status())) << member.status();
    // From then on operations return at once.
    member.Barrier();
    member.Send((member.rank() + 1) % 4, &value, 4);
    EXPECT_FALSE(member.Split(0).ok());
    if (++done == 3) others_done = true;
  });
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST_P(CommunicatorTest, NamesTheMemberThatLeaves) {
  Members members = Make(4);
  Run(members, [&](Communicator& member) {
    auto pair = member.Split(member.rank() / 2);
    ASSERT_TRUE(pair.ok());
    float value = 1;
    member.AllReduceSum(&value, 1);
    if (member.rank() == 1) {
      pair->reset();
      members[1].reset();
      return;
    }
    // One waits for member 1 alone, the others for all.
    if (member.rank() == 0) {
      (*pair)->Receive(1, &value, 4);
    } else {
      member.Barrier();
    }
    EXPECT_THAT(std::string(member.status().message()), HasSubstr("rank 1"));
    EXPECT_FALSE((*pair)->status().ok());
  });
}

TEST_P(CommunicatorTest, AbortReleasesAMemberThatWaits) {
  Members members = Make(3);
  std::thread other;
  Run(members, [&](Communicator& member) {
    float value = 1;
    if (member.rank() == 0) {
      // From a thread that is not the member's.
      other = std::thread([&member] { member.Abort(absl::CancelledError("the session is over")); });
    }
    if (member.rank() == 2) return member.Receive(0, &value, 4);
    member.Barrier();
    EXPECT_FALSE(member.status().ok());
    if (member.rank() == 0) {
      EXPECT_EQ(member.status().message(), "the session is over");
    }
  });
  other.join();
  EXPECT_FALSE(members[2]->status().ok());
}

// Sizes come from what was exchanged before, which nobody knows after a failure.
TEST_P(CommunicatorTest, SizesNeedNotAgreeAfterAFailure) {
  Members members = Make(2);
  Run(members, [](Communicator& member) {
    member.Abort(absl::CancelledError("the session is over"));
    member.Barrier();
    std::vector<char> sent(64, 's');
    std::vector<char> received(64, 'r');
    const std::vector<CommBytes> to(2, {sent.data(), 16});
    const std::vector<CommBytes> from(2, {received.data(), 0});
    member.AllToAll(to, from);
    EXPECT_EQ(received, std::vector<char>(64, 'r'));
  });
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest,
                         ::testing::Values(Kind{"InProcess", InProcess}, Kind{"Gloo", Gloo}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace troupe
