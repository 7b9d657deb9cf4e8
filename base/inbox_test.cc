#include "base/inbox.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "absl/time/time.h"
#include "base/actor.h"

namespace troupe {
namespace {

TEST(InboxTest, RefusesOverCapacityAndKeepsOrder) {
  const auto inbox = Inbox<int>::Create("inbox", 2);
  EXPECT_TRUE(inbox->ref().Tell(1).ok());
  EXPECT_TRUE(inbox->ref().Tell(2).ok());
  EXPECT_EQ(inbox->ref().Tell(3).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(inbox->ref().TellReply(4).ok());
  for (const int expected : {1, 2, 4}) EXPECT_EQ(inbox->Receive(absl::ZeroDuration()), expected);
  EXPECT_EQ(inbox->Receive(absl::Milliseconds(1)), std::nullopt);
}

TEST(InboxTest, CloseWakesTheReaderRefusesSendersAndTellsWatchers) {
  const auto inbox = Inbox<int>::Create("inbox", 2);
  std::optional<Down> down;
  Watch watch = inbox->ref().Monitor([&](Down notice) { down = std::move(notice); });
  EXPECT_TRUE(inbox->ref().Tell(1).ok());
  std::thread reader([&] {
    EXPECT_EQ(inbox->Receive(absl::InfiniteDuration()), 1);
    EXPECT_EQ(inbox->Receive(absl::InfiniteDuration()), std::nullopt);
  });
  inbox->Close(absl::CancelledError("client went away"));
  reader.join();
  EXPECT_EQ(inbox->ref().Tell(2).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(inbox->ref().alive());
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->reason.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace troupe
