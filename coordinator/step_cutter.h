// Cuts a model's output into reasoning steps and the answer.
//
// The reasoning is what stands between <think> and </think>; each of its lines that is not empty is
// a step. Without <think>, everything is the answer. How the text is cut into pieces never matters,
// except for the tokens that a step is said to span: a step spans the pieces that touch it.
//
// Thread model: one owner. Cost: linear in the text.
#ifndef TROUPE_COORDINATOR_STEP_CUTTER_H_
#define TROUPE_COORDINATOR_STEP_CUTTER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe {

class StepCutter {
 public:
  struct Step {
    uint32_t index = 0;
    std::string text;
    uint32_t first_token = 0;  // index in the output
    uint32_t token_count = 0;
  };

  // Takes the text that token number `token` completed; returns the steps that it ended.
  std::vector<Step> Push(std::string_view text, uint32_t token);

  // At the end of the output: the step that was not ended by a line break, if there is one.
  std::vector<Step> Flush();

  // The text after the reasoning, without the blank around it.
  std::string answer() const;
  bool reasoning() const { return phase_ == Phase::kReasoning; }
  uint32_t steps() const { return steps_; }

 private:
  enum class Phase : uint8_t { kBefore, kReasoning, kAnswer };

  void Take(char c, std::vector<Step>& out);
  void EndLine(std::vector<Step>& out);

  Phase phase_ = Phase::kBefore;
  std::string line_;  // of the reasoning, or all of what comes before and after it
  uint32_t line_first_token_ = 0;
  uint32_t token_ = 0;
  uint32_t steps_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_STEP_CUTTER_H_
