// Ends a text before the first stop string.
//
// Text comes in pieces; how it is cut into pieces never matters. What may be the beginning of a
// stop string is held back until it is one, or cannot be.
//
// Thread model: one owner. Cost: linear in the text, times the number of stop strings.
#ifndef TROUPE_COORDINATOR_STOP_MATCHER_H_
#define TROUPE_COORDINATOR_STOP_MATCHER_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

class StopMatcher {
 public:
  // Empty stop strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that is now known to stand before any stop string. After a match: nothing more.
  std::string Push(std::string_view text);

  // The text that was held back, at the end of the whole.
  std::string Flush();

  // The stop string that ended the text, the earliest in it and, at the same place, the first
  // given.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_STOP_MATCHER_H_
