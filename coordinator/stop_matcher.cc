#include "coordinator/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

// Length of the longest end of `text` that is a beginning of `stop`, but not all of it.
size_t PendingLength(std::string_view text, std::string_view stop) {
  size_t length = std::min(text.size(), stop.size() - 1);
  while (length > 0 && text.substr(text.size() - length) != stop.substr(0, length)) --length;
  return length;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::Push(std::string_view text) {
  if (matched_.has_value()) return "";
  if (stops_.empty()) return std::string(text);
  held_ += text;
  size_t at = std::string::npos;
  const std::string* which = nullptr;
  size_t pending = 0;
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found < at) {
      at = found;
      which = &stop;
    }
    pending = std::max(pending, PendingLength(held_, stop));
  }
  // An unfinished stop string that begins earlier than a finished one would win if it came true.
  if (which != nullptr && held_.size() - pending >= at) {
    matched_ = *which;
    return std::exchange(held_, "").substr(0, at);
  }
  std::string safe = held_.substr(0, held_.size() - pending);
  held_.erase(0, safe.size());
  return safe;
}

std::string StopMatcher::Flush() {
  if (matched_.has_value()) return "";
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found != std::string::npos) {
      matched_ = stop;
      return std::exchange(held_, "").substr(0, found);
    }
  }
  return std::exchange(held_, "");
}

}  // namespace troupe
