// NCCL between processes, each with a GPU of its own where there are so many; others share the
// first, which NCCL takes for ranks on different machines.
#include "worker/nccl_communicator.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "kernels/device.h"
#include "kernels/replays.h"
#include "worker/meeting.h"
#include "worker/testing/communicator_cases.h"
#include "worker/testing/local_meeting.h"

namespace troupe {
namespace {

constexpr int kMostRanks = 4;
constexpr int kMostBytes = 256;

// Memory that the processes of a test share: all zero at first.
struct Shared {
  struct Round {
    std::array<int, kMostRanks> sizes;
    std::array<std::array<char, kMostBytes>, kMostRanks> texts;
    std::atomic<int> came;
  };
  std::array<Round, 4> rounds;
  std::atomic<int> came;
  std::atomic<bool> over;
};

class SharedMeeting final : public Meeting {
 public:
  SharedMeeting(Shared* shared, int rank, int size) : shared_(shared), rank_(rank), size_(size) {}

  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override {
    Shared::Round& round = shared_->rounds.at(round_++);
    CHECK_LE(mine.size(), static_cast<size_t>(kMostBytes));
    std::memcpy(round.texts.at(rank_).data(), mine.data(), mine.size());
    round.sizes.at(rank_) = static_cast<int>(mine.size());
    ++round.came;
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (round.came < size_) {
      if (absl::Now() > deadline) return absl::UnavailableError("not all ranks came");
      std::this_thread::yield();
    }
    std::vector<std::string> all;
    for (int r = 0; r < size_; ++r) {
      all.emplace_back(round.texts.at(r).data(), round.sizes.at(r));
    }
    return all;
  }

 private:
  Shared* const shared_;
  const int rank_;
  const int size_;
  int round_ = 0;
};

class NcclCommunicatorTest : public ::testing::Test {
 protected:
  using Body = std::function<void(const testing::CommunicatorMember&)>;

  void SetUp() override {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        /*fd=*/-1, /*offset=*/0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared();
  }
  void TearDown() override { munmap(shared_, sizeof(Shared)); }

  // This process must stay without a GPU's context, which a fork does not survive.
  static bool HasGpu() {
    const int status = Wait(Fork([] { return MakeOps("cuda", {}).ok() ? 0 : 1; }));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

  // Runs `body` in a process a rank; what waitpid says of each.
  std::vector<int> Run(int size, absl::Duration timeout, const Body& body) {
    shared_ = new (shared_) Shared();
    std::vector<pid_t> processes;
    for (int rank = 0; rank < size; ++rank) {
      processes.push_back(Fork([&] { return Rank(rank, size, timeout, body); }));
    }
    std::vector<int> statuses;
    for (const pid_t process : processes) statuses.push_back(Wait(process));
    return statuses;
  }

  Shared* shared_ = nullptr;

 private:
  static pid_t Fork(const std::function<int()>& run) {
    std::fflush(nullptr);
    const pid_t process = fork();
    CHECK_GE(process, 0);
    if (process != 0) return process;
    const int code = run();
    std::fflush(nullptr);
    _exit(code);
  }

  static int Wait(pid_t process) {
    int status = 0;
    CHECK_EQ(waitpid(process, &status, 0), process);
    return status;
  }

  int Rank(int rank, int size, absl::Duration timeout, const Body& body) {
    auto ops = MakeOps(absl::StrCat("cuda:", rank), {});
    const bool shares = !ops.ok();
    if (shares) ops = MakeOps("cuda", {});
    CHECK_OK(ops.status());
    setenv("NCCL_HOSTID", shares ? absl::StrCat("rank-", rank).c_str() : "this", /*replace=*/1);
    setenv("NCCL_SOCKET_IFNAME", "lo", /*replace=*/0);
    SharedMeeting meeting(shared_, rank, size);
    auto made =
        MakeNcclCommunicator({.rank = rank, .size = size, .timeout = timeout}, meeting, ops->get());
    CHECK_OK(made.status());
    EXPECT_EQ((*made)->rank(), rank);
    EXPECT_EQ((*made)->size(), size);
    body({.communicator = **made, .ops = ops->get(), .came = shared_->came});
    return HasFailure() ? EXIT_FAILURE : EXIT_SUCCESS;
  }
};

// One f32 on a GPU.
class Number {
 public:
  explicit Number(Ops* ops) {
    auto made = ops->Allocate(sizeof(float));
    CHECK_OK(made.status());
    buffer_ = *std::move(made);
    ops->Clear(buffer_.get(), sizeof(float));
  }
  float* data() { return reinterpret_cast<float*>(buffer_.get()); }

 private:
  Buffer buffer_;
};

struct CaseOfSize {
  testing::CommunicatorCase what;
  int size;
};

std::vector<CaseOfSize> Cases() {
  std::vector<CaseOfSize> cases;
  for (const testing::CommunicatorCase& what : testing::CommunicatorCases()) {
    for (const int size : what.sizes) {
      if (size <= kMostRanks) cases.push_back({what, size});
    }
  }
  return cases;
}

class NcclCommunicatorCaseTest : public NcclCommunicatorTest,
                                 public ::testing::WithParamInterface<CaseOfSize> {};

TEST_P(NcclCommunicatorCaseTest, DoesWhatEveryCommunicatorDoes) {
  if (!HasGpu()) GTEST_SKIP() << "needs a GPU";
  const int size = GetParam().size;
  EXPECT_EQ(Run(size, absl::Seconds(60), GetParam().what.body), std::vector<int>(size, 0));
}

INSTANTIATE_TEST_SUITE_P(All, NcclCommunicatorCaseTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) {
                           return absl::StrCat(info.param.what.name, info.param.size);
                         });

// One round and two, as kernels/replays.h says that sections are kept.
TEST_F(NcclCommunicatorTest, SumsAreReplayed) {
  if (!HasGpu()) GTEST_SKIP() << "needs a GPU";
  const auto body = [](const testing::CommunicatorMember& member) {
    Ops& ops = *member.ops;
    for (const int64_t count : {1000, 200'000}) {
      const auto bytes = static_cast<int64_t>(count * sizeof(float));
      auto values = ops.Allocate(bytes);
      CHECK_OK(values.status());
      auto* device = reinterpret_cast<float*>(values->get());
      const std::unique_ptr<Replays> replays = ops.MakeReplays();
      int launched = 0;
      for (int round = 0; round < 12; ++round) {
        ops.BeginStep();
        ops.Stage(&round, sizeof(round));
        const std::vector<float> mine(count,
                                      static_cast<float>(member.communicator.rank() + round));
        ops.Upload(device, mine.data(), bytes);
        if (replays->Begin({.kind = 1, .tokens = 1})) {
          member.communicator.AllReduceSum(device, count);
          replays->End();
          ++launched;
        }
        member.communicator.Replayed();
        const auto* sums = static_cast<const float*>(ops.Fetch(device, bytes));
        ops.Synchronize();
        const std::vector<float> wanted(count, static_cast<float>(1 + 2 * round));
        EXPECT_EQ(std::vector<float>(sums, sums + count), wanted) << count << ", round " << round;
      }
      EXPECT_LT(launched, 8);
    }
    EXPECT_TRUE(member.communicator.status().ok()) << member.communicator.status();
  };
  EXPECT_EQ(Run(2, absl::Seconds(60), body), std::vector<int>(2, 0));
}

TEST_F(NcclCommunicatorTest, ADeadRankEndsTheOthersWait) {
  if (!HasGpu()) GTEST_SKIP() << "needs a GPU";
  const absl::Time start = absl::Now();
  const std::vector<int> statuses =
      Run(2, absl::Seconds(10), [](const testing::CommunicatorMember& member) {
        Number number(member.ops);
        member.communicator.AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        ASSERT_TRUE(member.communicator.status().ok()) << member.communicator.status();
        // Kernels of a part wait while the whole has none.
        auto part = member.communicator.Split(0);
        ASSERT_TRUE(part.ok()) << part.status();
        (*part)->AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        if (member.communicator.rank() == 1) raise(SIGKILL);
        for (int i = 0; i < 3; ++i) (*part)->AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        // The watch may need a moment to say so.
        const absl::Time deadline = absl::Now() + absl::Seconds(20);
        while (member.communicator.status().ok() && absl::Now() < deadline) {
          std::this_thread::yield();
        }
        std::cout << member.communicator.status() << "\n";
        EXPECT_FALSE(member.communicator.status().ok());
        // From then on operations return at once.
        member.communicator.Barrier();
        EXPECT_FALSE(member.communicator.Split(0).ok());
      });
  EXPECT_EQ(statuses[0], 0);
  EXPECT_TRUE(WIFSIGNALED(statuses[1]));
  EXPECT_LT(absl::Now() - start, absl::Seconds(60));
}

TEST_F(NcclCommunicatorTest, AStandstillEndsTheWait) {
  if (!HasGpu()) GTEST_SKIP() << "needs a GPU";
  const std::vector<int> statuses =
      Run(2, absl::Seconds(2), [this](const testing::CommunicatorMember& member) {
        Number number(member.ops);
        member.communicator.AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        if (member.communicator.rank() == 1) {
          while (!shared_->over) absl::SleepFor(absl::Milliseconds(10));
          return;
        }
        member.communicator.AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        EXPECT_TRUE(absl::IsDeadlineExceeded(member.communicator.status()))
            << member.communicator.status();
        shared_->over = true;
      });
  EXPECT_EQ(statuses, std::vector<int>(2, 0));
}

TEST_F(NcclCommunicatorTest, AbortReleasesAMemberThatWaits) {
  if (!HasGpu()) GTEST_SKIP() << "needs a GPU";
  const std::vector<int> statuses =
      Run(2, absl::Seconds(60), [this](const testing::CommunicatorMember& member) {
        Number number(member.ops);
        if (member.communicator.rank() == 1) {
          while (!shared_->over) absl::SleepFor(absl::Milliseconds(10));
          return;
        }
        std::thread other([&] {
          absl::SleepFor(absl::Milliseconds(300));
          member.communicator.Abort(absl::CancelledError("the session is over"));
        });
        const absl::Time start = absl::Now();
        member.communicator.AllReduceSum(number.data(), 1);
        member.ops->Synchronize();
        other.join();
        EXPECT_LT(absl::Now() - start, absl::Seconds(20));
        EXPECT_EQ(member.communicator.status().message(), "the session is over");
        shared_->over = true;
      });
  EXPECT_EQ(statuses, std::vector<int>(2, 0));
}

TEST(NcclCommunicator, WantsAGpu) {
  auto ops = MakeOps("cpu", {.threads = 1});
  CHECK_OK(ops.status());
  auto place = std::make_shared<testing::LocalMeetingPlace>(1);
  testing::LocalMeeting meeting(place, /*rank=*/0);
  const auto made = MakeNcclCommunicator({.rank = 0, .size = 1}, meeting, ops->get());
  EXPECT_TRUE(absl::IsFailedPrecondition(made.status())) << made.status();
}

}  // namespace
}  // namespace troupe
