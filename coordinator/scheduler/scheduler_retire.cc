// What a step's result changes. See scheduler.h.

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {

absl::StatusOr<std::vector<SequenceEvent>> Scheduler::Retire(const v1::StepResult& result,
                                                             int64_t now_us) {
  if (absl::Status status = CheckResult(result); !status.ok()) return status;
  const StepInFlight step = std::move(steps_.front());
  steps_.pop_front();
  last_contact_us_ = now_us;
  memory_.Retire(step.step);

  std::vector<SequenceEvent> events;
  events.reserve(step.rows.size());
  const absl::flat_hash_set<uint32_t> failed(result.failed_slot().begin(),
                                             result.failed_slot().end());
  int sampled = 0;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    FetchAhead(step.rows, i);
    const RowInFlight& row = step.rows[i];
    RowResult told = {.heads_skipped = result.row_heads_skipped(static_cast<int>(i))};
    if (row.samples) {
      told.sample_index = sampled++;
      told.damaged = !failed.empty() && failed.contains(row.slot);
    }
    // The sequence may be over since the row was planned, and its slot another's.
    const Slot& slot = slots_[row.slot];
    if (slot.sequence == nullptr || slot.since_step > step.step) continue;
    events.push_back(RetireRow(*slot.sequence, row, told, result));
  }
  for (const v1::TransferDone& done : result.transfers()) EndTransfer(done);

  meter_.ObserveStep(step.prefill_tokens, step.decode_rows, result.forward_us());
  pace_.Observe(step.prefill_tokens, step.decode_rows, result.forward_us());
  counters_.set_steps(counters_.steps() + 1);
  counters_.set_forward_us_total(counters_.forward_us_total() + result.forward_us());
  return events;
}

// Rows in order of urgency lie anywhere in memory: first the sequence, then what it points to.
void Scheduler::FetchAhead(const std::vector<RowInFlight>& rows, size_t i) const {
  constexpr size_t kRowsAhead = 8;
  const auto sequence = [&](size_t row) -> const LiveSequence* {
    return row < rows.size() ? slots_[rows[row].slot].sequence : nullptr;
  };
  if (const LiveSequence* s = sequence(i + 2 * kRowsAhead)) PrefetchResult(s);
  if (const LiveSequence* s = sequence(i + kRowsAhead)) PrefetchToken(*s);
}

absl::Status Scheduler::CheckResult(const v1::StepResult& result) const {
  const auto bad = [&](auto... what) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker '", replica_.worker, "': result of step ", result.step(), " ", what...));
  };
  if (steps_.empty()) return bad("answers no plan");
  const StepInFlight& step = steps_.front();
  if (result.epoch() != epoch_) return bad("is of epoch ", result.epoch(), ", not ", epoch_);
  if (result.step() != step.step) return bad("came where step ", step.step, " was awaited");
  if (result.row_heads_skipped_size() != static_cast<int>(step.rows.size())) {
    return bad("tells skipped heads of ", result.row_heads_skipped_size(), " rows, not ",
               step.rows.size());
  }
  if (result.sampled_token_size() != result.sampled_slot_size()) {
    return bad("has ", result.sampled_token_size(), " tokens for ", result.sampled_slot_size(),
               " slots");
  }
  int sampled = 0;
  for (const RowInFlight& row : step.rows) {
    if (!row.samples) continue;
    if (sampled >= result.sampled_slot_size() || result.sampled_slot(sampled) != row.slot) {
      return bad("lacks the token of slot ", row.slot, " as number ", sampled);
    }
    ++sampled;
  }
  if (sampled != result.sampled_slot_size()) {
    return bad("has ", result.sampled_slot_size(), " tokens, not ", sampled);
  }
  if (!result.logprobs().empty() && result.logprobs_size() != sampled) {
    return bad("has ", result.logprobs_size(), " log-probabilities for ", sampled, " tokens");
  }
  for (int i = 0; i < result.transfers_size(); ++i) {
    const uint64_t id = result.transfers(i).id();
    bool known = transfers_.IsUnderWay(id);
    for (int j = 0; j < i; ++j) known = known && result.transfers(j).id() != id;
    if (!known) return bad("ends transfer ", id, ", which is not under way");
  }
  return absl::OkStatus();
}

SequenceEvent Scheduler::RetireRow(LiveSequence& s, const RowInFlight& row, const RowResult& told,
                                   const v1::StepResult& result) {
  SequenceEvent event;
  event.sequence = s.request.id;
  event.tokens_computed = row.count;
  event.heads_skipped = told.heads_skipped;
  s.computed = row.start + row.count;
  if (row.start < s.request.prompt_tokens) {
    const uint32_t prompt = std::min(s.computed, s.request.prompt_tokens) - row.start;
    counters_.set_prompt_tokens_computed(counters_.prompt_tokens_computed() + prompt);
  }
  if (told.damaged) {
    event.finish = FinishReason::kDamaged;
  } else if (row.samples) {
    event.has_token = true;
    event.token = result.sampled_token(told.sample_index);
    event.index = s.token_count - s.request.prompt_tokens;
    event.logprobs_index = result.logprobs().empty() ? -1 : told.sample_index;
    s.request.tokens.push_back(event.token);
    ++s.token_count;
    --s.samples_in_flight;
    counters_.set_tokens_generated(counters_.tokens_generated() + 1);
    const auto& stops = s.request.stop_token_ids;
    if (std::find(stops.begin(), stops.end(), event.token) != stops.end()) {
      event.finish = FinishReason::kStopToken;
    } else if (s.token_count >= s.limit_tokens) {
      event.finish = FinishReason::kMaxTokens;
    }
    if (s.has_held_forks) ReleaseForks(s);
  }
  const bool is_one_more = row.count == 1 && event.index > 0;
  if (!is_one_more || event.finish != FinishReason::kNone) event.figures = s.figures;
  // What damaged the logits may lie in the pages: they are not offered for reuse.
  if (event.finish != FinishReason::kDamaged && s.computed >= s.page_event_at) TurnPages(s);
  if (event.finish != FinishReason::kNone) Remove(s);
  return event;
}

// Blocks that are complete can be shared from now on; pages that every token to come is past are
// given back. No row in flight reaches behind `computed`, so they are free at once.
void Scheduler::TurnPages(LiveSequence& s) {
  if (s.request.use_cache) {
    const uint32_t complete = s.computed / replica_.block_tokens;
    for (; s.published_blocks < complete; ++s.published_blocks) {
      PublishBlock(s, s.published_blocks);
    }
  }
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    const uint32_t first = replica_.groups[g].FirstBlock(s.computed, replica_.block_tokens);
    for (uint32_t& block = s.first_held[g]; block < first; ++block) {
      if (s.table[g][block] == kNoPageId) continue;
      memory_.Unref(g, std::exchange(s.table[g][block], kNoPageId), /*last_step=*/0);
    }
  }
  SetPageEvent(s);
}

void Scheduler::PublishBlock(LiveSequence& s, uint32_t block) {
  if (block == s.keys.size()) {
    const absl::Span<const uint32_t> tokens = s.request.tokens;
    s.keys.push_back(NextKey(block == 0 ? s.root : s.keys[block - 1],
                             tokens.subspan(block * replica_.block_tokens, replica_.block_tokens)));
  }
  const std::vector<uint32_t>& cached = s.request.cached_groups;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    PrefixEntry& entry = memory_.Publish(s.keys[block], g, s.table[g][block]);
    if (block < cached.size()) entry.stored |= cached[block] & (1u << g);
    if (!replica_.has_cache || (entry.stored >> g & 1) != 0) continue;
    entry.stored |= 1u << g;
    const std::optional<Transfer> dropped = transfers_.AddStore(
        {.key = s.keys[block], .tenant_namespace = s.tenant_namespace, .group = g},
        config_.max_stores_waiting);
    if (!dropped) continue;
    if (PrefixEntry* old = memory_.Find(dropped->key)) old->stored &= ~(1u << dropped->group);
  }
}

void Scheduler::SetPageEvent(LiveSequence& s) const {
  s.page_event_at = (s.computed / replica_.block_tokens + 1) * replica_.block_tokens;
  for (uint32_t g = 0; g < replica_.groups.size(); ++g) {
    const uint32_t window = replica_.groups[g].window_tokens;
    if (window == 0) continue;
    const uint32_t leaves_at = (s.first_held[g] + 1) * replica_.block_tokens + window - 1;
    s.page_event_at = std::min(s.page_event_at, leaves_at);
  }
}

void Scheduler::EndTransfer(const v1::TransferDone& done) {
  const uint32_t in_flight = transfers_.under_way();
  const Transfer transfer = transfers_.End(done.id());
  const bool moved = done.outcome() == v1::TransferDone::OUTCOME_DONE;
  if (transfer.is_load()) {
    EndLoad(transfer, done, in_flight);
  } else if (moved) {
    counters_.set_blocks_stored(counters_.blocks_stored() + 1);
  } else if (PrefixEntry* entry = memory_.Find(transfer.key)) {
    entry->stored &= ~(1u << transfer.group);
  }
  memory_.Unref(transfer.group, transfer.page, /*last_step=*/0);
}

// A block that came is there for everybody, even if the sequence that wanted it is gone.
void Scheduler::EndLoad(const Transfer& load, const v1::TransferDone& done, uint32_t in_flight) {
  const uint32_t bit = 1u << load.group;
  const bool moved = done.outcome() == v1::TransferDone::OUTCOME_DONE;
  if (load.is_fill()) {
    CHECK(moved) << "host memory has lost a block";
    memory_.UnrefHost(load.group, load.host_page);
    memory_.Publish(load.key, load.group, load.page);
    counters_.set_blocks_filled(counters_.blocks_filled() + 1);
    counters_.set_bytes_filled(counters_.bytes_filled() + done.bytes());
    counters_.set_fill_us_total(counters_.fill_us_total() + done.duration_us());
    host_meter_.ObserveLoad(done.bytes(), done.duration_us(), in_flight);
  } else if (moved) {
    memory_.Publish(load.key, load.group, load.page).stored |= bit;
    counters_.set_blocks_loaded(counters_.blocks_loaded() + 1);
    meter_.ObserveLoad(done.bytes(), done.duration_us(), in_flight);
  }
  const auto it = loading_.find(load.load_batch);
  if (it == loading_.end()) return;
  LiveSequence& s = *it->second;
  --s.loads_outstanding;
  if (moved) {
    if (!load.is_fill()) s.blocks_loaded[load.block] |= bit;
    return;
  }
  memory_.Unref(load.group, std::exchange(s.table[load.group][load.block], kNoPageId),
                /*last_step=*/0);
  s.request.cached_groups[load.block] &= ~bit;
}

}  // namespace troupe
