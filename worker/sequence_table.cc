#include "worker/sequence_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "kernels/embed/embed.h"

namespace troupe {
namespace {

absl::Status Bad(absl::string_view field, uint32_t slot, absl::string_view found,
                 absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " of slot ", slot, ": found ", found, ", wanted ", wanted));
}

absl::StatusOr<SamplingParams> SamplingFrom(const v1::Sampling& message) {
  if (!message.has_temperature() || !message.has_seed()) {
    return absl::InvalidArgumentError(
        "found no temperature or no seed, wanted both: plans carry resolved sampling");
  }
  SamplingParams params;
  params.temperature = message.temperature();
  params.top_k = message.top_k();
  if (message.has_top_p()) params.top_p = message.top_p();
  params.min_p = message.min_p();
  if (message.has_repetition_penalty()) params.repetition_penalty = message.repetition_penalty();
  params.presence_penalty = message.presence_penalty();
  params.frequency_penalty = message.frequency_penalty();
  params.seed = message.seed();
  if (message.has_logprobs()) params.logprobs = message.logprobs();
  TROUPE_RETURN_IF_ERROR(ValidateSampling(params));
  return params;
}

// True for NaN as well.
bool OutsideUnit(float value) { return !(value >= 0 && value <= 1); }

}  // namespace

SequenceTable::SequenceTable(const Limits& limits) : limits_(limits), slots_(limits.slots) {}

void SequenceTable::Clear() {
  for (std::optional<Sequence>& slot : slots_) slot.reset();
  live_ = 0;
}

absl::Status SequenceTable::CheckLive(absl::string_view field, uint32_t slot) const {
  if (slot >= slots_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": found slot ", slot, ", wanted less than ", slots_.size()));
  }
  if (slots_[slot].has_value()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(field, ": found slot ", slot, ", which is free, wanted one with a sequence"));
}

absl::Status SequenceTable::Add(const v1::NewSequence& message) {
  const uint32_t slot = message.slot();
  if (slot >= slots_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("new_sequences: found slot ", slot, ", wanted less than ", slots_.size()));
  }
  if (slots_[slot].has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("new_sequences: found slot ", slot, ", which is taken, wanted a free one"));
  }
  const auto length = static_cast<uint32_t>(message.tokens_size());
  if (length == 0 || length > limits_.max_context) {
    return Bad("tokens", slot, absl::StrCat(length),
               absl::StrCat("1 to the context of ", limits_.max_context));
  }
  if (message.prompt_tokens() > length) {
    return Bad("prompt_tokens", slot, absl::StrCat(message.prompt_tokens()),
               absl::StrCat("at most the ", length, " tokens"));
  }
  const auto unknown = std::find_if(message.tokens().begin(), message.tokens().end(),
                                    [this](uint32_t token) { return token >= limits_.vocab_size; });
  if (unknown != message.tokens().end()) {
    return Bad("tokens", slot, absl::StrCat("token ", *unknown),
               absl::StrCat("less than the vocabulary of ", limits_.vocab_size));
  }
  const GateRule gate{message.gate().threshold(), message.gate().adaptive_mass()};
  if (OutsideUnit(gate.threshold) || OutsideUnit(gate.adaptive_mass)) {
    return Bad("gate", slot, absl::StrCat(gate.threshold, " and ", gate.adaptive_mass),
               "both in [0, 1]");
  }
  absl::StatusOr<SamplingParams> sampling = SamplingFrom(message.sampling());
  if (!sampling.ok()) {
    return Annotate(sampling.status(), absl::StrCat("sampling of slot ", slot));
  }

  Sequence& sequence = slots_[slot].emplace();
  ++live_;
  sequence.serial = ++last_serial_;
  sequence.tokens.assign(message.tokens().begin(), message.tokens().end());
  sequence.prompt_tokens = message.prompt_tokens();
  sequence.sampling = *sampling;
  sequence.gate = gate;
  if (sequence.sampling.HasPenalties()) {
    const absl::Span<const uint32_t> tokens = sequence.tokens;
    sequence.counts.AddPrompt(tokens.first(sequence.prompt_tokens));
    for (const uint32_t token : tokens.subspan(sequence.prompt_tokens)) {
      sequence.counts.AddOutput(token);
    }
  }
  return absl::OkStatus();
}

absl::Status SequenceTable::Finish(uint32_t slot) {
  TROUPE_RETURN_IF_ERROR(CheckLive("finished_slots", slot));
  slots_[slot].reset();
  --live_;
  return absl::OkStatus();
}

absl::Status SequenceTable::TakeRow(uint32_t slot, uint32_t start, uint32_t count, Row& row) {
  if (slot >= slots_.size() || !slots_[slot].has_value()) return CheckLive("row_slot", slot);
  Sequence& sequence = *slots_[slot];
  if (sequence.last_step == step_) {
    return Bad("row_slot", slot, "a second row in one plan", "one row a sequence");
  }
  if (sequence.started && start != sequence.computed) {
    return Bad("row_start", slot, absl::StrCat(start),
               absl::StrCat(sequence.computed, ", the length computed so far"));
  }
  const uint64_t end = uint64_t{start} + count;
  const uint64_t known = std::min<uint64_t>(sequence.tokens.size(), limits_.max_context);
  if (count == 0 || end > known) {
    return Bad("row_count", slot, absl::StrCat("tokens [", start, ", ", end, ")"),
               absl::StrCat("at least one, up to ", known, " of ", sequence.tokens.size(),
                            " known tokens and a context of ", limits_.max_context));
  }
  sequence.started = true;
  sequence.last_step = step_;
  sequence.computed = static_cast<uint32_t>(end);
  row.tokens = {sequence.tokens.data() + start, count};
  row.gate = sequence.gate;
  row.samples = end == sequence.tokens.size();
  return absl::OkStatus();
}

absl::StatusOr<SampledToken> SequenceTable::SampleNext(uint32_t slot, absl::Span<float> logits,
                                                       SamplerScratch& scratch) {
  Sequence& sequence = *slots_[slot];
  CHECK_EQ(sequence.computed, sequence.tokens.size());
  const bool counted = sequence.sampling.HasPenalties();
  absl::StatusOr<SampledToken> sampled =
      Sample(sequence.sampling, counted ? &sequence.counts : nullptr,
             sequence.tokens.size() - sequence.prompt_tokens, logits, scratch);
  // The plan that is on its way already counts on a token.
  Append(slot, sampled.ok() ? sampled->token : 0);
  return sampled;
}

void SequenceTable::DrawNext(uint32_t slot, SampleRule& rule, Drawn& drawn) {
  Sequence& sequence = *slots_[slot];
  CHECK_EQ(sequence.computed, sequence.tokens.size());
  const auto index = static_cast<uint32_t>(sequence.tokens.size());
  rule = RuleOf(sequence.sampling, index - sequence.prompt_tokens);
  rule.slot = slot;
  sequence.tokens.push_back(kLastTokenOf | slot);
  drawn.slot = slot;
  drawn.serial = sequence.serial;
  drawn.index = index;
}

void SequenceTable::Settle(const Drawn& drawn, uint32_t token) {
  std::optional<Sequence>& sequence = slots_[drawn.slot];
  if (sequence.has_value() && sequence->serial == drawn.serial) {
    sequence->tokens[drawn.index] = token;
  }
}

void SequenceTable::Append(uint32_t slot, uint32_t token) {
  Sequence& sequence = *slots_[slot];
  sequence.tokens.push_back(token);
  if (sequence.sampling.HasPenalties()) sequence.counts.AddOutput(token);
}

}  // namespace troupe
