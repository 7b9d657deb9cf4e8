// Ranks in processes of their own, over loopback: what happens when one is killed, stops or never
// comes.
#include "worker/gloo_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "worker/testing/local_meeting.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

// One end of a socket pair; messages are a length and so many bytes.
class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}

  bool Write(const std::string& text) const {
    const auto length = static_cast<uint32_t>(text.size());
    return WriteAll(&length, sizeof(length)) && WriteAll(text.data(), text.size());
  }
  // False: the other end is gone.
  bool Read(std::string* text) const {
    uint32_t length = 0;
    if (!ReadAll(&length, sizeof(length))) return false;
    text->resize(length);
    return ReadAll(text->data(), length);
  }
  int fd() const { return fd_; }

 private:
  bool WriteAll(const void* data, size_t size) const {
    return send(fd_, data, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }
  bool ReadAll(void* data, size_t size) const {
    return recv(fd_, data, size, MSG_WAITALL) == static_cast<ssize_t>(size);
  }

  int fd_;
};

// The parent process is the meeting place.
class ParentMeeting final : public Meeting {
 public:
  ParentMeeting(Line line, int size) : line_(line), size_(size) {}

  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override {
    std::vector<std::string> all(size_);
    if (!line_.Write(mine)) return absl::UnavailableError("the parent is gone");
    for (std::string& one : all) {
      if (!line_.Read(&one)) return absl::UnavailableError("the meeting was called off");
    }
    return all;
  }

 private:
  const Line line_;
  const int size_;
};

// Processes that run `body` as ranks of one communicator; each sends one report when it is done.
class Ranks {
 public:
  using Body = std::function<std::string(Communicator&, const Line& parent)>;

  Ranks(int size, absl::Duration timeout, const Body& body) : size_(size) {
    for (int rank = 0; rank < size; ++rank) {
      int ends[2];
      CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
      const pid_t pid = fork();
      CHECK_GE(pid, 0);
      if (pid == 0) {
        // Those of the ranks before are the parent's: a copy would keep them open.
        for (const Line& line : lines_) close(line.fd());
        close(ends[0]);
        Live(rank, timeout, Line(ends[1]), body);
        _exit(0);
      }
      close(ends[1]);
      pids_.push_back(pid);
      lines_.emplace_back(ends[0]);
    }
  }
  ~Ranks() {
    for (const pid_t pid : pids_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    for (const Line& line : lines_) close(line.fd());
  }

  // Carries the addresses around; ranks at and after `came` did not come.
  void Meet() {
    std::vector<std::string> all;
    all.reserve(size_);
    for (int rank = 0; rank < size_; ++rank) all.push_back(Read(rank));
    for (const Line& line : lines_) {
      for (const std::string& one : all) EXPECT_TRUE(line.Write(one));
    }
  }
  std::string Read(int rank) const {
    std::string text;
    return lines_[rank].Read(&text) ? text : "is gone";
  }
  void Tell(int rank, const std::string& text) const { EXPECT_TRUE(lines_[rank].Write(text)); }
  void Signal(int rank, int signal) const { EXPECT_EQ(kill(pids_[rank], signal), 0); }

 private:
  void Live(int rank, absl::Duration timeout, const Line& line, const Body& body) const {
    ParentMeeting meeting(line, size_);
    auto made = MakeGlooCommunicator(
        {.rank = rank, .size = size_, .connect_timeout = timeout, .timeout = timeout}, meeting,
        /*ops=*/nullptr);
    const std::string report =
        made.ok() ? body(**made, line) : std::string(made.status().message());
    line.Write(report);
  }

  const int size_;
  std::vector<pid_t> pids_;
  std::vector<Line> lines_;
};

// Sums until something fails; says why.
std::string SumForEver(Communicator& member, int64_t count) {
  std::vector<float> values(count);
  while (member.status().ok()) member.AllReduceSum(values.data(), count);
  return std::string(member.status().message());
}

class KilledRank : public ::testing::TestWithParam<int64_t> {};

TEST_P(KilledRank, IsNamedByAllOthersAtOnce) {
  for (int victim = 0; victim < 4; ++victim) {
    const auto body = [](Communicator& member, const Line& parent) {
      member.Barrier();
      parent.Write("running");
      return SumForEver(member, GetParam());
    };
    Ranks ranks(4, absl::Seconds(60), body);
    ranks.Meet();
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(ranks.Read(rank), "running");
    const absl::Time start = absl::Now();
    ranks.Signal(victim, SIGKILL);
    for (int rank = 0; rank < 4; ++rank) {
      if (rank == victim) continue;
      EXPECT_THAT(ranks.Read(rank), HasSubstr(absl::StrCat("rank ", victim, " of 4 is lost")));
    }
    EXPECT_LT(absl::Now() - start, absl::Seconds(20));
  }
}

// In one round, in two, and in the middle of long transfers.
INSTANTIATE_TEST_SUITE_P(Counts, KilledRank, ::testing::Values(16, 100'000, 4'000'000));

TEST(GlooCommunicator, NamesARankThatStops) {
  const auto body = [](Communicator& member, const Line& parent) {
    member.Barrier();
    parent.Write("running");
    if (member.rank() == 1) raise(SIGSTOP);
    return SumForEver(member, 1000);
  };
  Ranks ranks(3, absl::Milliseconds(500), body);
  ranks.Meet();
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(ranks.Read(rank), "running");
  EXPECT_THAT(ranks.Read(0), HasSubstr("rank 1 of 3 did not come"));
  EXPECT_THAT(ranks.Read(2), HasSubstr("rank 1 of 3 did not come"));
}

// In the middle of a sum of two rounds: others may wait for a rank that itself waits for it.
TEST(GlooCommunicator, NamesARankThatStopsInTheMiddleOfASum) {
  for (int victim = 0; victim < 4; ++victim) {
    const auto body = [](Communicator& member, const Line& parent) {
      member.Barrier();
      parent.Write("running");
      return SumForEver(member, 200'000);
    };
    Ranks ranks(4, absl::Milliseconds(600), body);
    ranks.Meet();
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(ranks.Read(rank), "running");
    ranks.Signal(victim, SIGSTOP);
    for (int rank = 0; rank < 4; ++rank) {
      if (rank == victim) continue;
      EXPECT_THAT(ranks.Read(rank), HasSubstr(absl::StrCat("rank ", victim, " of 4 did not come")));
    }
  }
}

TEST(GlooCommunicator, NamesARankThatDiesWhileTheyConnect) {
  const auto body = [](Communicator&, const Line&) { return std::string("connected"); };
  Ranks ranks(3, absl::Milliseconds(1500), body);
  std::vector<std::string> all;
  all.reserve(3);
  for (int rank = 0; rank < 3; ++rank) all.push_back(ranks.Read(rank));
  ranks.Signal(2, SIGKILL);
  EXPECT_EQ(ranks.Read(2), "is gone");
  for (int rank = 0; rank < 2; ++rank) {
    for (const std::string& one : all) ranks.Tell(rank, one);
  }
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(ranks.Read(rank), HasSubstr("rank 2 cannot be reached"));
  }
}

TEST(GlooCommunicator, HasNoAddressOfAnotherMachine) {
  testing::LocalMeeting meeting(std::make_shared<testing::LocalMeetingPlace>(1), 0);
  auto made = MakeGlooCommunicator({.host = "192.0.2.1"}, meeting, nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(made.status())) << made.status();
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("192.0.2.1"));
}

}  // namespace
}  // namespace troupe
