#include "coordinator/step_cutter.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace troupe {
namespace {

constexpr absl::string_view kOpen = "<think>";
constexpr absl::string_view kClose = "</think>";

}  // namespace

std::vector<StepCutter::Step> StepCutter::Push(std::string_view text, uint32_t token) {
  std::vector<Step> out;
  token_ = token;
  for (char c : text) Take(c, out);
  return out;
}

void StepCutter::Take(char c, std::vector<Step>& out) {
  if (phase_ == Phase::kReasoning && c == '\n') {
    EndLine(out);
    return;
  }
  if (line_.empty()) line_first_token_ = token_;
  line_ += c;
  if (phase_ == Phase::kBefore && absl::EndsWith(line_, kOpen)) {
    line_.clear();
    phase_ = Phase::kReasoning;
  } else if (phase_ == Phase::kReasoning && absl::EndsWith(line_, kClose)) {
    line_.resize(line_.size() - kClose.size());
    EndLine(out);
    phase_ = Phase::kAnswer;
  }
}

void StepCutter::EndLine(std::vector<Step>& out) {
  std::string text(absl::StripAsciiWhitespace(line_));
  line_.clear();
  if (text.empty()) return;
  out.push_back({steps_++, std::move(text), line_first_token_, token_ - line_first_token_ + 1});
}

std::vector<StepCutter::Step> StepCutter::Flush() {
  std::vector<Step> out;
  if (phase_ == Phase::kReasoning) EndLine(out);
  return out;
}

std::string StepCutter::answer() const {
  if (phase_ == Phase::kReasoning) return "";
  return std::string(absl::StripAsciiWhitespace(line_));
}

}  // namespace troupe
