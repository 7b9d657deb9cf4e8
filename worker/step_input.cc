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
  slot_.push_back(slot);
  start_.push_back(start);
  gate_.push_back(gate);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i + logits >= tokens.size()) logit_tokens_.push_back(static_cast<int32_t>(token_.size()));
    token_.push_back(tokens[i]);
    position_.push_back(start + static_cast<int32_t>(i));
    token_row_.push_back(row);
  }
  first_.push_back(static_cast<int32_t>(token_.size()));
  longest_ = std::max(longest_, start + static_cast<int>(tokens.size()));
}

void StepInput::Draw(const SampleRule& rule) {
  draw_.push_back(rule);
  CHECK_LE(draw_.size(), logit_tokens_.size());
}

bool StepInput::OnlyDecodes() const {
  return !slot_.empty() && slot_.size() == token_.size() && logit_tokens_.size() == token_.size();
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
