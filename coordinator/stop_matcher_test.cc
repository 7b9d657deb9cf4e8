#include "coordinator/stop_matcher.h"

#include <random>

#include "gtest/gtest.h"

namespace troupe {
namespace {

// What the definition says, on the whole text.
std::string Oracle(const std::string& text, const std::vector<std::string>& stops) {
  size_t at = text.size();
  for (const auto& stop : stops) at = std::min(at, text.find(stop));
  return text.substr(0, at);
}

TEST(StopMatcherTest, WithoutStopsNothingIsHeldBack) {
  StopMatcher matcher({""});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_FALSE(matcher.matched().has_value());
}

TEST(StopMatcherTest, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Push("xE"), "x");
  EXPECT_EQ(matcher.Push("N"), "");
  EXPECT_EQ(matcher.Push("x"), "ENx");
  EXPECT_EQ(matcher.Push("EN"), "");
  EXPECT_EQ(matcher.Flush(), "EN");
}

TEST(StopMatcherTest, NothingComesAfterAMatch) {
  StopMatcher matcher({"\n\n", "stop"});
  EXPECT_EQ(matcher.Push("a\n"), "a");
  EXPECT_EQ(matcher.Push("\nb"), "");
  EXPECT_EQ(matcher.matched(), "\n\n");
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, AnEarlierLongerStopWinsWhenItComesTrue) {
  StopMatcher matcher({"abcd", "bc"});
  EXPECT_EQ(matcher.Push("xabc"), "x");
  EXPECT_EQ(matcher.Push("d"), "");
  EXPECT_EQ(matcher.matched(), "abcd");
}

TEST(StopMatcherTest, AnyCutOfTheTextGivesTheSame) {
  std::mt19937 random(20240611);
  auto letters = [&](int most) {
    std::string text(random() % most + 1, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::string text = letters(30);
    std::vector<std::string> stops(random() % 3 + 1);
    for (auto& stop : stops) stop = letters(5);
    StopMatcher matcher(stops);
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t length = random() % 5 + 1;
      out += matcher.Push(std::string_view(text).substr(at, length));
      at += length;
    }
    out += matcher.Flush();
    EXPECT_EQ(out, Oracle(text, stops)) << text << " stops at " << stops[0];
    EXPECT_EQ(matcher.matched().has_value(), out.size() < text.size());
  }
}

}  // namespace
}  // namespace troupe
