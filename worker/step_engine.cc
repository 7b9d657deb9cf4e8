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
                  .vocab_size = static_cast<uint32_t>(rank->model.description.vocab_size),
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
  for (int i = 0; i < plan.grant_slot_size(); ++i) {
    TROUPE_RETURN_IF_ERROR(sequences_.CheckLive("grant_slot", plan.grant_slot(i)));
    TROUPE_RETURN_IF_ERROR(rank_->pages->Grant(plan.grant_slot(i), plan.grant_group(i),
                                               plan.grant_block(i), plan.grant_page(i)));
  }
  return absl::OkStatus();
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

absl::Status StepEngine::Compute(const v1::StepPlan& plan, v1::StepResult& result) {
  const bool joins =
      !plan.row_slot().empty() || std::any_of(plan.home_tokens().begin(), plan.home_tokens().end(),
                                              [](uint32_t tokens) { return tokens > 0; });
  if (!joins) return absl::OkStatus();
  TROUPE_RETURN_IF_ERROR(AddRows(plan));
  const int64_t start_ns = clock_->MonotonicNs();
  int64_t tokens = input_.tokens();
  for (const uint32_t of_home : plan.home_tokens()) tokens = std::max<int64_t>(tokens, of_home);
  const int stages = rank_->links == nullptr ? 1 : rank_->links->pp->size();
  const StepOutput output = rank_->runner->Forward(
      input_, MicroBatches(stages, tokens, PartTokens(rank_->config.device)));
  TROUPE_RETURN_IF_ERROR(rank_->runner->status());
  const int64_t forward_ns = clock_->MonotonicNs();
  for (const int32_t closed : output.heads_closed) result.add_row_heads_skipped(closed);
  CountExperts(output.expert_tokens, result);
  if (rank_->model.shard.last_stage) {
    SampleRows(output, result);
    SendTokens(result);
  } else {
    ReceiveTokens();
    TROUPE_RETURN_IF_ERROR(rank_->runner->status());
  }
  result.set_forward_us((forward_ns - start_ns) / 1000);
  result.set_sample_us((clock_->MonotonicNs() - forward_ns) / 1000);
  return absl::OkStatus();
}

void StepEngine::CountExperts(absl::Span<const int32_t> tokens, v1::StepResult& result) {
  expert_tokens_.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) expert_tokens_[i] += static_cast<uint32_t>(tokens[i]);
  if (++counted_steps_ < kStepsCounted) return;
  result.mutable_expert_tokens()->Assign(expert_tokens_.begin(), expert_tokens_.end());
  counted_steps_ = 0;
  expert_tokens_.clear();
}

absl::Status StepEngine::AddRows(const v1::StepPlan& plan) {
  input_.Clear();
  sampling_slots_.clear();
  sequences_.BeginStep();
  for (int i = 0; i < plan.row_slot_size(); ++i) {
    const uint32_t slot = plan.row_slot(i);
    const uint32_t start = plan.row_start(i);
    TROUPE_ASSIGN_OR_RETURN(const SequenceTable::Row row,
                            sequences_.TakeRow(slot, start, plan.row_count(i)));
    TROUPE_RETURN_IF_ERROR(rank_->pages->CheckRow(slot, start, plan.row_count(i)));
    input_.AddRow(slot, static_cast<int32_t>(start), row.tokens, row.gate, row.samples ? 1 : 0);
    if (row.samples) sampling_slots_.push_back(slot);
  }
  return absl::OkStatus();
}

void StepEngine::SendTokens(const v1::StepResult& result) {
  if (stage_tokens_ == nullptr || sampling_slots_.empty()) return;
  const auto bytes = static_cast<int64_t>(sampling_slots_.size() * sizeof(uint32_t));
  rank_->ops->Upload(stage_tokens_.get(), result.sampled_token().data(), bytes);
  Communicator& stages = *rank_->links->pp;
  for (int stage = 0; stage < stages.rank(); ++stage) {
    stages.Send(stage, stage_tokens_.get(), bytes);
  }
}

void StepEngine::ReceiveTokens() {
  if (sampling_slots_.empty()) return;
  const auto bytes = static_cast<int64_t>(sampling_slots_.size() * sizeof(uint32_t));
  Communicator& stages = *rank_->links->pp;
  stages.Receive(stages.size() - 1, stage_tokens_.get(), bytes);
  const auto* tokens = static_cast<const uint32_t*>(rank_->ops->Fetch(stage_tokens_.get(), bytes));
  rank_->ops->Synchronize();
  // What was not received means nothing, and the session is about to end.
  for (size_t i = 0; i < sampling_slots_.size(); ++i)
    sequences_.Append(sampling_slots_[i], tokens[i]);
}

void StepEngine::SampleRows(const StepOutput& output, v1::StepResult& result) {
  const bool any_logprobs =
      std::any_of(sampling_slots_.begin(), sampling_slots_.end(),
                  [this](uint32_t slot) { return sequences_.WantsLogprobs(slot); });
  for (size_t i = 0; i < sampling_slots_.size(); ++i) {
    const uint32_t slot = sampling_slots_[i];
    float* logits = output.logits.f32(static_cast<int64_t>(i));
    absl::StatusOr<SampledToken> sampled =
        sequences_.SampleNext(slot, absl::MakeSpan(logits, output.logits.cols), scratch_);
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

}  // namespace troupe
