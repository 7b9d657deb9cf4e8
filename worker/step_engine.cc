#include "worker/step_engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"
#include "worker/micro_batches.h"

namespace troupe {
namespace {

PlanLimits LimitsOf(const Rank& rank) {
  PlanLimits limits;
  limits.max_rows = rank.config.max_rows;
  limits.max_step_tokens = rank.config.max_step_tokens;
  for (size_t g = 0; g < rank.pages->groups().size(); ++g) {
    limits.page_count.push_back(rank.pages->page_count(static_cast<int>(g)));
  }
  return limits;
}

// Loads of experts change slowly, and in large models they are thousands of numbers. All ranks of a
// replica count the same steps, so that they tell in the same one.
constexpr int kStepsCounted = 64;

v1::TokenLogprobs LogprobsOf(const SampledToken& sampled) {
  v1::TokenLogprobs logprobs;
  logprobs.set_logprob(sampled.logprob);
  for (const auto& [token, logprob] : sampled.top) {
    logprobs.add_top_ids(token);
    logprobs.add_top_logprobs(logprob);
  }
  return logprobs;
}

}  // namespace

StepEngine::StepEngine(Rank* rank, const Clock* clock)
    : rank_(rank),
      clock_(clock),
      limits_(LimitsOf(*rank)),
      sequences_({.slots = limits_.max_rows,
                  .vocab_size = static_cast<uint32_t>(rank->model->description.vocab_size),
                  .max_context = static_cast<uint32_t>(rank->config.max_context)}),
      input_(rank->config.max_rows, rank->config.max_step_tokens) {
  if (rank->links == nullptr || rank->links->pp->size() == 1) return;
  auto tokens = rank->ops->Allocate(int64_t{limits_.max_rows} * 4);
  CHECK_OK(tokens.status());
  stage_tokens_ = *std::move(tokens);
}

void StepEngine::Reset() {
  sequences_.Clear();
  counted_steps_ = 0;
  expert_tokens_.clear();
  for (uint32_t slot = 0; slot < limits_.max_rows; ++slot) {
    CHECK_OK(rank_->pages->ReleaseSlot(slot));
  }
}

absl::Status StepEngine::Prepare(const v1::StepPlan& plan) {
  const OpsRange range(*rank_->ops, "prepare");
  TROUPE_RETURN_IF_ERROR(CheckPlan(plan, limits_));
  for (const uint32_t slot : plan.finished_slots()) {
    TROUPE_RETURN_IF_ERROR(sequences_.Finish(slot));
    TROUPE_RETURN_IF_ERROR(rank_->pages->ReleaseSlot(slot));
  }
  for (const v1::NewSequence& sequence : plan.new_sequences()) {
    TROUPE_RETURN_IF_ERROR(sequences_.Add(sequence));
  }
  TROUPE_RETURN_IF_ERROR(ApplyGrants(plan));
  return ApplyCopies(plan);
}

absl::Status StepEngine::ApplyGrants(const v1::StepPlan& plan) {
  grants_.clear();
  for (int i = 0; i < plan.grant_slot_size(); ++i) {
    TROUPE_RETURN_IF_ERROR(sequences_.CheckLive("grant_slot", plan.grant_slot(i)));
    grants_.push_back(
        {plan.grant_slot(i), plan.grant_group(i), plan.grant_block(i), plan.grant_page(i)});
  }
  return rank_->pages->Grant(grants_);
}

absl::Status StepEngine::ApplyCopies(const v1::StepPlan& plan) {
  if (plan.copy_group().empty()) return absl::OkStatus();
  std::vector<std::vector<uint32_t>> from(limits_.page_count.size());
  std::vector<std::vector<uint32_t>> to(limits_.page_count.size());
  for (int i = 0; i < plan.copy_group_size(); ++i) {
    from[plan.copy_group(i)].push_back(plan.copy_from_page(i));
    to[plan.copy_group(i)].push_back(plan.copy_to_page(i));
  }
  for (uint32_t group = 0; group < from.size(); ++group) {
    if (from[group].empty()) continue;
    TROUPE_RETURN_IF_ERROR(rank_->pages->CopyPages(group, from[group], to[group]));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepEngine::Launched> StepEngine::Launch(const v1::StepPlan& plan) {
  Launched step;
  step.joins =
      !plan.row_slot().empty() || std::any_of(plan.home_tokens().begin(), plan.home_tokens().end(),
                                              [](uint32_t tokens) { return tokens > 0; });
  if (!step.joins) return step;
  const OpsRange range(*rank_->ops, "launch");
  TROUPE_RETURN_IF_ERROR(AddRows(plan, step));
  step.start_ns = clock_->MonotonicNs();
  step.output = rank_->runner->Launch(input_, Parts(plan));
  TROUPE_RETURN_IF_ERROR(rank_->runner->status());
  return step;
}

int StepEngine::Parts(const v1::StepPlan& plan) const {
  int64_t tokens = input_.tokens();
  for (const uint32_t of_home : plan.home_tokens()) tokens = std::max<int64_t>(tokens, of_home);
  const int stages = rank_->links == nullptr ? 1 : rank_->links->pp->size();
  return MicroBatches(stages, tokens, PartTokens(rank_->config.device));
}

void StepEngine::CountExperts(absl::Span<const int32_t> tokens, v1::StepResult& result) {
  expert_tokens_.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) expert_tokens_[i] += static_cast<uint32_t>(tokens[i]);
  if (++counted_steps_ < kStepsCounted) return;
  result.mutable_expert_tokens()->Assign(expert_tokens_.begin(), expert_tokens_.end());
  counted_steps_ = 0;
  expert_tokens_.clear();
}

absl::Status StepEngine::AddRows(const v1::StepPlan& plan, Launched& step) {
  input_.Clear();
  sequences_.BeginStep();
  step.ahead = rank_->runner->unattended();
  const absl::Span<const uint32_t> slots = plan.row_slot();
  const absl::Span<const uint32_t> starts = plan.row_start();
  const absl::Span<const uint32_t> counts = plan.row_count();
  step.slots.reserve(slots.size());
  SequenceTable::Row row;
  for (size_t i = 0; i < slots.size(); ++i) {
    const uint32_t slot = slots[i];
    const uint32_t start = starts[i];
    TROUPE_RETURN_IF_ERROR(sequences_.TakeRow(slot, start, counts[i], row));
    TROUPE_RETURN_IF_ERROR(rank_->pages->CheckRow(slot, start, counts[i]));
    input_.AddRow(slot, static_cast<int32_t>(start), row.tokens, row.gate, row.samples ? 1 : 0);
    if (!row.samples) continue;
    step.slots.push_back(slot);
    step.ahead = step.ahead && sequences_.FitsDevice(slot);
  }
  if (step.ahead) DrawOnDevice(step);
  return absl::OkStatus();
}

void StepEngine::DrawOnDevice(Launched& step) {
  step.drawn.resize(step.slots.size());
  for (size_t i = 0; i < step.slots.size(); ++i) {
    sequences_.DrawNext(step.slots[i], input_.Draw(), step.drawn[i]);
  }
}

absl::Status StepEngine::Finish(const Launched& step, v1::StepResult& result) {
  TROUPE_RETURN_IF_ERROR(rank_->runner->status());
  if (!step.joins) return absl::OkStatus();
  const OpsRange range(*rank_->ops, "finish");
  // The device was at the step before until that ended.
  const int64_t start_ns = std::max(step.start_ns, last_end_ns_);
  last_end_ns_ = clock_->MonotonicNs();
  const auto& closed = step.output.heads_closed;
  result.mutable_row_heads_skipped()->Add(closed.begin(), closed.end());
  CountExperts(step.output.expert_tokens, result);
  if (step.ahead) {
    ReportDrawn(step, result);
  } else if (rank_->model->shard.last_stage) {
    DrawOnHost(step, result);
    SendTokens(result);
  } else {
    ReceiveTokens(step);
    TROUPE_RETURN_IF_ERROR(rank_->runner->status());
  }
  result.set_forward_us((last_end_ns_ - start_ns) / 1000);
  result.set_sample_us((clock_->MonotonicNs() - last_end_ns_) / 1000);
  return absl::OkStatus();
}

void StepEngine::ReportDrawn(const Launched& step, v1::StepResult& result) {
  result.mutable_sampled_slot()->Add(step.slots.begin(), step.slots.end());
  result.mutable_sampled_token()->Reserve(static_cast<int>(step.slots.size()));
  for (size_t i = 0; i < step.slots.size(); ++i) {
    auto token = static_cast<uint32_t>(step.output.drawn[i]);
    if (token == kDamagedLogits) {
      LOG(ERROR) << "the sequence in slot " << step.slots[i]
                 << " cannot go on: its logits hold no finite distribution; the model's weights or "
                    "its state are damaged";
      result.add_failed_slot(step.slots[i]);
      token = 0;
    }
    sequences_.Settle(step.drawn[i], token);
    result.add_sampled_token(token);
  }
}

void StepEngine::DrawOnHost(const Launched& step, v1::StepResult& result) {
  const Tensor& logits = step.output.logits;
  const bool any_logprobs =
      std::any_of(step.slots.begin(), step.slots.end(),
                  [this](uint32_t slot) { return sequences_.WantsLogprobs(slot); });
  for (size_t i = 0; i < step.slots.size(); ++i) {
    const uint32_t slot = step.slots[i];
    absl::StatusOr<SampledToken> sampled = sequences_.SampleNext(
        slot, absl::MakeSpan(logits.f32(static_cast<int64_t>(i)), logits.cols), scratch_);
    if (!sampled.ok()) {
      LOG(ERROR) << "the sequence in slot " << slot << " cannot go on: " << sampled.status();
      result.add_failed_slot(slot);
      sampled = SampledToken();
    }
    result.add_sampled_slot(slot);
    result.add_sampled_token(sampled->token);
    if (any_logprobs) *result.add_logprobs() = LogprobsOf(*sampled);
  }
}

void StepEngine::SendTokens(const v1::StepResult& result) {
  if (stage_tokens_ == nullptr || result.sampled_token().empty()) return;
  const auto bytes = static_cast<int64_t>(result.sampled_token_size() * sizeof(uint32_t));
  rank_->ops->Upload(stage_tokens_.get(), result.sampled_token().data(), bytes);
  Communicator& stages = *rank_->links->pp;
  for (int stage = 0; stage < stages.rank(); ++stage) {
    stages.Send(stage, stage_tokens_.get(), bytes);
  }
}

void StepEngine::ReceiveTokens(const Launched& step) {
  if (step.slots.empty()) return;
  const auto bytes = static_cast<int64_t>(step.slots.size() * sizeof(uint32_t));
  Communicator& stages = *rank_->links->pp;
  stages.Receive(stages.size() - 1, stage_tokens_.get(), bytes);
  const auto* tokens = static_cast<const uint32_t*>(rank_->ops->Fetch(stage_tokens_.get(), bytes));
  rank_->ops->Synchronize();
  // What was not received means nothing, and the session is about to end.
  for (size_t i = 0; i < step.slots.size(); ++i) sequences_.Append(step.slots[i], tokens[i]);
}

}  // namespace troupe
