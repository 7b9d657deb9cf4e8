#include "coordinator/reshard/transaction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/actor.h"
#include "base/random.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kDeadlineUs = 1000;

// "prepare 0", "retire 1 keep 7", ...
std::vector<std::string> Words(const ReshardActions& actions) {
  std::vector<std::string> words;
  for (const ReshardAction& action : actions) {
    words.push_back(std::visit(
        Overloaded{[](const WriteBegin&) { return std::string("begin"); },
                   [](const AskPrepare& a) { return absl::StrCat("prepare ", a.member); },
                   [](const WriteDecision&) { return std::string("decide"); },
                   [](const SwitchServing&) { return std::string("switch"); },
                   [](const AskRetire& a) {
                     return absl::StrCat("retire ", a.member, " keep ", a.keep_epoch);
                   },
                   [](const EndReshard& e) {
                     return absl::StrCat(e.decided ? "ended " : "rolled back ", e.status.message());
                   }},
        action));
  }
  return words;
}

// w0 stays, w1 leaves, w2 joins; from epoch 3 to 7.
ReshardTransaction Make() {
  return ReshardTransaction({.old_epoch = 3, .new_epoch = 7, .retire_timeout_us = 500},
                            {{.worker = "w0", .in_old = true, .in_new = true, .digest = "d0"},
                             {.worker = "w2", .in_new = true, .digest = "d2"},
                             {.worker = "w1", .in_old = true}});
}

TEST(ReshardTransaction, GoesItsWay) {
  ReshardTransaction t = Make();
  EXPECT_THAT(Words(t.Start(kDeadlineUs)), ElementsAre("begin"));
  EXPECT_THAT(Words(t.Begun(absl::OkStatus())), ElementsAre("prepare 0", "prepare 1"));
  EXPECT_THAT(Words(t.Prepared(1, std::string("d2"))), IsEmpty());
  EXPECT_EQ(t.prepared(), 1u);
  EXPECT_THAT(Words(t.Prepared(0, std::string("d0"))), ElementsAre("decide"));
  EXPECT_FALSE(t.decided());
  EXPECT_THAT(Words(t.Decided(absl::OkStatus())), ElementsAre("switch"));
  EXPECT_TRUE(t.decided());
  EXPECT_THAT(Words(t.Switched(absl::OkStatus(), 0)),
              ElementsAre("retire 0 keep 7", "retire 1 keep 7", "retire 2 keep 0"));
  EXPECT_THAT(Words(t.Retired(0)), IsEmpty());
  EXPECT_THAT(Words(t.Retired(2)), IsEmpty());
  EXPECT_THAT(Words(t.Retired(1)), ElementsAre("ended "));
}

TEST(ReshardTransaction, RollsBackBeforeTheDecision) {
  const auto prepared = [] {
    ReshardTransaction t = Make();
    t.Start(kDeadlineUs);
    t.Begun(absl::OkStatus());
    t.Prepared(0, std::string("d0"));
    return t;
  };
  ReshardTransaction wrong = prepared();
  EXPECT_THAT(Words(wrong.Prepared(1, std::string("other"))),
              ElementsAre("retire 0 keep 3", "retire 1 keep 0",
                          HasSubstr("rolled back rank w2 holds something else than planned: found "
                                    "digest 6f74686572, wanted 6432")));
  ReshardTransaction failed = prepared();
  EXPECT_THAT(Words(failed.Prepared(1, absl::ResourceExhaustedError("no memory"))).back(),
              "rolled back rank w2: no memory");
  ReshardTransaction lost = prepared();
  EXPECT_THAT(Words(lost.Lost(2, absl::UnavailableError("gone"))).back(),
              "rolled back rank w1: gone");
  ReshardTransaction late = prepared();
  EXPECT_THAT(Words(late.Tick(kDeadlineUs - 1)), IsEmpty());
  EXPECT_THAT(Words(late.Tick(kDeadlineUs)).back(),
              "rolled back 1 of 2 ranks were prepared by the deadline; these were not: w2");
  EXPECT_THAT(Words(late.Prepared(1, std::string("d2"))), IsEmpty());
  ReshardTransaction cancelled = prepared();
  EXPECT_THAT(Words(cancelled.Cancel(absl::CancelledError("no more"))).back(),
              "rolled back no more");
  // Nobody was asked yet: nobody has anything to let go of.
  ReshardTransaction early = Make();
  early.Start(kDeadlineUs);
  EXPECT_THAT(Words(early.Lost(0, absl::UnavailableError("gone"))),
              ElementsAre("rolled back rank w0: gone"));
  ReshardTransaction unwritten = Make();
  unwritten.Start(kDeadlineUs);
  EXPECT_THAT(Words(unwritten.Begun(absl::DataLossError("disk full"))),
              ElementsAre("rolled back disk full"));
}

TEST(ReshardTransaction, WaitsForTheLogOnceItWasAsked) {
  ReshardTransaction t = Make();
  t.Start(kDeadlineUs);
  t.Begun(absl::OkStatus());
  t.Prepared(0, std::string("d0"));
  t.Prepared(1, std::string("d2"));
  // Whether it is decided is the log's to say.
  EXPECT_THAT(Words(t.Lost(0, absl::UnavailableError("gone"))), IsEmpty());
  EXPECT_THAT(Words(t.Tick(kDeadlineUs * 10)), IsEmpty());
  EXPECT_THAT(Words(t.Cancel(absl::CancelledError("no more"))), IsEmpty());
  EXPECT_THAT(Words(t.Decided(absl::DataLossError("disk full"))).back(),
              HasSubstr("rolled back the decision could not be written: disk full"));
}

TEST(ReshardTransaction, RollsForwardAfterTheDecision) {
  ReshardTransaction t = Make();
  t.Start(kDeadlineUs);
  t.Begun(absl::OkStatus());
  t.Prepared(0, std::string("d0"));
  t.Prepared(1, std::string("d2"));
  t.Decided(absl::OkStatus());
  EXPECT_THAT(Words(t.Lost(1, absl::UnavailableError("gone"))), IsEmpty());
  EXPECT_THAT(Words(t.Tick(kDeadlineUs * 10)), IsEmpty());
  EXPECT_THAT(Words(t.Cancel(absl::CancelledError("no more"))), IsEmpty());
  EXPECT_THAT(Words(t.Switched(absl::UnavailableError("rank w2 is gone"), 0)),
              ElementsAre("retire 0 keep 7", "retire 1 keep 7", "retire 2 keep 0",
                          "ended rank w2 is gone"));
}

TEST(ReshardTransaction, DoesNotWaitForTheDeadToLetGo) {
  for (const bool lost : {true, false}) {
    ReshardTransaction t = Make();
    t.Start(kDeadlineUs);
    t.Begun(absl::OkStatus());
    t.Prepared(0, std::string("d0"));
    t.Prepared(1, std::string("d2"));
    t.Decided(absl::OkStatus());
    t.Switched(absl::OkStatus(), 5000);
    t.Retired(0);
    t.Retired(1);
    if (lost) {
      EXPECT_THAT(Words(t.Lost(2, absl::UnavailableError("gone"))), ElementsAre("ended "));
    } else {
      EXPECT_THAT(Words(t.Tick(5499)), IsEmpty());
      EXPECT_THAT(Words(t.Tick(5500)), ElementsAre("ended "));
    }
  }
}

// Whatever happens in whatever order: it ends once, it is decided at most once, it switches only
// after that, and it is never decided with a rank that has not shown the right digest.
TEST(ReshardTransaction, KeepsItsPromisesInAnyOrder) {
  for (uint64_t seed = 1; seed <= 20'000; ++seed) {
    SeededRandom random(seed);
    ReshardTransaction t = Make();
    int ends = 0;
    int decisions = 0;
    bool durable = false;
    std::vector<bool> shown(3, false);
    const auto look = [&](const ReshardActions& actions) {
      for (const std::string& word : Words(actions)) {
        EXPECT_EQ(ends, 0) << word << " after the end";
        if (word == "decide") {
          ++decisions;
          EXPECT_TRUE(shown[0] && shown[1]);
        }
        EXPECT_TRUE(word != "switch" || durable);
        EXPECT_FALSE(word.starts_with("rolled back") && durable);
        if (word.starts_with("ended") || word.starts_with("rolled back")) ++ends;
      }
    };
    look(t.Start(kDeadlineUs));
    for (int i = 0; i < 40; ++i) {
      const size_t member = random.Below(3);
      const absl::Status outcome =
          random.Below(4) == 0 ? absl::UnavailableError("no") : absl::OkStatus();
      switch (random.Below(20)) {
        case 0:
          look(t.Lost(member, absl::UnavailableError("gone")));
          break;
        case 1:
          look(t.Cancel(absl::CancelledError("no")));
          break;
        case 2:
          look(t.Tick(static_cast<int64_t>(random.Below(kDeadlineUs + 100))));
          break;
        case 3:
        case 4:
        case 5:
          if (t.phase() == ReshardPhase::kDeciding) {
            durable = outcome.ok();
            look(t.Decided(outcome));
          }
          break;
        case 6:
        case 7:
          look(t.Switched(outcome, 100));
          break;
        case 8:
        case 9:
          look(t.Retired(member));
          break;
        case 10:
        case 11:
          look(t.Begun(outcome));
          break;
        default: {
          if (member == 2) break;
          const bool right = random.Below(20) != 0;
          shown[member] = shown[member] || (right && t.phase() == ReshardPhase::kPreparing);
          look(t.Prepared(member, right ? t.members()[member].digest : std::string("wrong")));
        }
      }
    }
    EXPECT_LE(decisions, 1);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace troupe
