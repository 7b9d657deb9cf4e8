#include <algorithm>

#include "base/check.h"
#include "worker/model_runner.h"

namespace troupe {
StepInput::StepInput(int max_rows, int max_tokens) : max_rows_(max_rows), max_tokens_(max_tokens) {
  slot_.reserve(max_rows_);
  start_.reserve(max_rows_);
  first_.reserve(max_rows_ + 1);
  gate_.reserve(max_rows_);
  token_.reserve(max_tokens_);
  position_.reserve(max_tokens_);
  token_row_.reserve(max_tokens_);
  logit_tokens_.reserve(max_tokens_);
  draw_.reserve(max_rows_);
  Clear();
}

void StepInput::Clear() {
  slot_.clear();
  start_.clear();
  first_.assign(1, 0);
  gate_.clear();
  token_.clear();
  position_.clear();
  token_row_.clear();
  logit_tokens_.clear();
  draw_.clear();
  longest_ = 0;
}

bool StepInput::Fits(size_t more_tokens) const {
  return slot_.size() < max_rows_ && token_.size() + more_tokens <= max_tokens_;
}

void StepInput::AddRow(uint32_t slot, int32_t start, absl::Span<const uint32_t> tokens,
                       GateRule gate, int logits) {
  CHECK(Fits(tokens.size())) << tokens.size() << " tokens on top of " << token_.size() << " in "
                             << slot_.size() << " rows";
  CHECK(!tokens.empty());
  CHECK(logits >= 0 && static_cast<size_t>(logits) <= tokens.size()) << logits;
  const auto row = static_cast<int32_t>(slot_.size());
  const auto first_token = static_cast<int32_t>(token_.size());
  slot_.push_back(slot);
  start_.push_back(start);
  gate_.push_back(gate);
  const auto count = static_cast<int32_t>(tokens.size());
  for (int32_t i = 0; i < count; ++i) {
    token_.push_back(tokens[i]);
    position_.push_back(start + i);
    token_row_.push_back(row);
  }
  for (int32_t i = count - logits; i < count; ++i) logit_tokens_.push_back(first_token + i);
  first_.push_back(first_token + count);
  longest_ = std::max(longest_, start + count);
}

SampleRule& StepInput::Draw() {
  CHECK(draw_.size() < logit_tokens_.size());
  return draw_.emplace_back();
}

bool StepInput::OnlyDecodes() const {
  return !slot_.empty() && slot_.size() == token_.size() && logit_tokens_.size() == token_.size();
}

int StepInput::CutTo(int index, int count, bool within_rows, StepInput& part) const {
  part.Clear();
  const auto at = [&](int i) { return static_cast<int>(int64_t{tokens()} * i / count); };
  const int begin = at(index);
  const int end = at(index + 1);
  int first_row = rows();
  for (int row = 0; row < rows(); ++row) {
    int from = first_[row];
    int to = first_[row + 1];
    if (within_rows) {
      from = std::max(from, begin);
      to = std::min(to, end);
    } else if (from < begin || from >= end) {
      continue;
    }
    if (from >= to) continue;
    first_row = std::min(first_row, row);
    const auto logits = std::lower_bound(logit_tokens_.begin(), logit_tokens_.end(), to) -
                        std::lower_bound(logit_tokens_.begin(), logit_tokens_.end(), from);
    part.AddRow(slot_[row], start_[row] + from - first_[row],
                absl::MakeConstSpan(token_).subspan(from, to - from), gate_[row],
                static_cast<int>(logits));
  }
  return first_row;
}

BatchView StepInput::batch() const {
  BatchView view;
  view.rows = rows();
  view.tokens = tokens();
  view.slot = slot_.data();
  view.start = start_.data();
  view.first = first_.data();
  view.position = position_.data();
  view.token_row = token_row_.data();
  view.longest = longest_;
  return view;
}

}  // namespace troupe
