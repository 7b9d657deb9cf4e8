// Every implementation of Communicator that runs without a GPU. Members are threads of this
// process.
#include "worker/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "worker/gloo_communicator.h"
#include "worker/in_process_communicator.h"
#include "worker/testing/communicator_cases.h"
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

TEST_P(CommunicatorTest, DoesWhatEveryCommunicatorDoes) {
  for (const testing::CommunicatorCase& one : testing::CommunicatorCases()) {
    for (const int size : one.sizes) {
      SCOPED_TRACE(absl::StrCat(one.name, ", members: ", size));
      Members members = Make(size);
      std::atomic<int> came = 0;
      Run(members, [&](Communicator& member) {
        EXPECT_EQ(member.size(), size);
        one.body({.communicator = member, .came = came});
      });
    }
  }
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
    // Nobody sends anything.
    member.Receive((member.rank() + 1) % 3, &value, 4);
    EXPECT_FALSE(member.status().ok());
    if (member.rank() == 0) {
      EXPECT_EQ(member.status().message(), "the session is over");
    }
  });
  other.join();
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
