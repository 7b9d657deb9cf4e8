// One step: Plan and the steps it is made of. See scheduler.h.

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "base/check.h"
#include "coordinator/scheduler/chunking.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/scheduler/victim.h"

namespace troupe {
namespace {

// Enough of them that fetching one from memory takes less than visiting these.
constexpr size_t kSequencesAhead = 8;

bool IsEmpty(const v1::StepPlan& plan) {
  return plan.row_slot().empty() && plan.finished_slots().empty() && plan.new_sequences().empty() &&
         plan.loads().empty() && plan.stores().empty() && plan.fill_id().empty();
}

}  // namespace

std::optional<v1::StepPlan> Scheduler::Plan(int64_t now_us) {
  if (evacuated_ || steps_.size() >= config_.max_steps_in_flight) return std::nullopt;
  if (IsWaitingForCompanions(now_us)) return std::nullopt;

  DecideSpilling();
  Draft draft = BeginStep();
  AddDecodeRows(draft);
  Admit(draft, now_us);
  AddPrefillRows(draft);
  AddTransfers(draft);

  const std::optional<int64_t> poll_at = PollAt();
  if (IsEmpty(draft.plan) && !(poll_at && *poll_at <= now_us)) return std::nullopt;
  AddSpills(draft);
  last_step_ = draft.record.step;
  last_contact_us_ = now_us;
  steps_.push_back(std::move(draft.record));
  return std::move(draft.plan);
}

std::optional<int64_t> Scheduler::NextWakeup(int64_t now_us) const {
  if (evacuated_) return std::nullopt;
  if (IsWaitingForCompanions(now_us)) return batch_opened_us_ + config_.min_batch_delay_us;
  return PollAt();
}

bool Scheduler::IsWaitingForCompanions(int64_t now_us) const {
  return holders_.empty() && steps_.empty() && queue_.waiting() > 0 &&
         queue_.waiting() < batch_limit_ && now_us < batch_opened_us_ + config_.min_batch_delay_us;
}

// The worker reports ended transfers only with a step's result. While nothing else asks for steps,
// an empty one fetches the report.
std::optional<int64_t> Scheduler::PollAt() const {
  if (!steps_.empty() || transfers_.under_way() == 0) return std::nullopt;
  return last_contact_us_ + (loading_.empty() ? config_.store_poll_us : config_.load_poll_us);
}

Scheduler::Draft Scheduler::BeginStep() {
  Draft draft;
  draft.record.step = last_step_ + 1;
  draft.plan.set_epoch(epoch_);
  draft.plan.set_step(draft.record.step);
  for (const uint32_t slot : finished_slots_) {
    draft.plan.add_finished_slots(slot);
    free_slots_.push_back(slot);
  }
  finished_slots_.clear();
  holders_.Settle();
  const int rows = static_cast<int>(holders_.size());
  draft.record.rows.reserve(holders_.size());
  draft.plan.mutable_row_slot()->Reserve(rows);
  draft.plan.mutable_row_start()->Reserve(rows);
  draft.plan.mutable_row_count()->Reserve(rows);
  return draft;
}

// Preempted sequences are less urgent than the one that needs room, so they stand behind it.
void Scheduler::AddDecodeRows(Draft& draft) {
  for (size_t i = 0; i < holders_.places(); ++i) {
    const size_t soon = i + kSequencesAhead;
    if (soon < holders_.places() && holders_.at(soon) != nullptr) PrefetchPlan(holders_.at(soon));
    if (holders_.at(i) == nullptr) continue;
    LiveSequence& s = *holders_.at(i);
    if (!s.runs()) continue;
    if (s.remaining() > 1) draft.prompts.push_back(&s);
    if (s.remaining() != 1 || s.length() >= s.limit_tokens) continue;
    if (Grow(draft, s, s.planned + 1) > s.planned) {
      AddRow(draft, s, 1);
      ++draft.record.decode_rows;
    }
  }
}

void Scheduler::AddPrefillRows(Draft& draft) {
  std::vector<LiveSequence*>& prompts = draft.prompts;
  if (prompts.empty()) return;
  std::sort(prompts.begin(), prompts.end(), MoreUrgent);  // some have just been admitted
  // A stream that has begun and stands still waits for its next token, as those that decode do.
  std::vector<LiveSequence*> resumed;
  std::erase_if(prompts, [&](LiveSequence* s) {
    if (s->resumes()) resumed.push_back(s);
    return s->resumes();
  });
  AddChunks(draft, resumed, replica_.max_step_tokens - draft.record.decode_rows);
  if (prompts.empty()) return;
  const PrefillLimits limits = {
      .max_step_tokens = replica_.max_step_tokens,
      .mixed_tokens = config_.mixed_prefill_tokens,
      .mixed_us = config_.mixed_prefill_us,
      .min_chunk_tokens = config_.min_chunk_tokens,
      .prefill_tokens_per_us = meter_.rates().prefill_tokens_per_us,
      .pace = pace_.pace(),
  };
  const uint32_t budget =
      PrefillBudget(limits, draft.record.decode_rows, static_cast<uint32_t>(prompts.size()));
  const uint32_t taken = draft.record.decode_rows + draft.record.prefill_tokens;
  AddChunks(draft, prompts, std::min(budget, replica_.max_step_tokens - taken));
}

void Scheduler::AddChunks(Draft& draft, const std::vector<LiveSequence*>& prompts,
                          uint32_t budget) {
  std::vector<uint32_t> remaining;
  for (const LiveSequence* s : prompts) remaining.push_back(s->remaining());
  const std::vector<uint32_t> chunks = ShareBudget(budget, config_.min_chunk_tokens, remaining);
  for (size_t i = 0; i < prompts.size(); ++i) {
    LiveSequence& s = *prompts[i];
    if (chunks[i] == 0 || !s.runs()) continue;
    const uint32_t end = Grow(draft, s, s.planned + chunks[i]);
    if (end <= s.planned) continue;
    draft.record.prefill_tokens += end - s.planned;
    AddRow(draft, s, end - s.planned);
  }
}

void Scheduler::AddRow(Draft& draft, LiveSequence& s, uint32_t count) {
  draft.plan.add_row_slot(s.slot);
  draft.plan.add_row_start(s.planned);
  draft.plan.add_row_count(count);
  const bool samples = s.planned + count == s.length();
  draft.record.rows.push_back({s.slot, s.planned, count, samples});
  s.planned += count;
  s.samples_in_flight += samples ? 1 : 0;
  s.last_step = draft.record.step;
  const double cost = samples ? count - 1 + config_.output_token_cost : count;
  s.tenant->counter += ChargeFor(cost, 1, s.tenant->weight);
  s.tenant->tokens_served += count;
}

// Grants blocks until `tokens` tokens have pages, as far as there are any, and says how many have.
// When there are none for the next token, less urgent sequences give up theirs.
uint32_t Scheduler::Grow(Draft& draft, LiveSequence& s, uint32_t tokens) {
  const uint32_t block_tokens = replica_.block_tokens;
  while (s.granted_blocks * block_tokens < tokens) {
    const bool needed_now = s.granted_blocks * block_tokens <= s.planned;
    const bool first_served = short_ == nullptr || !(short_->urgency < s.urgency);
    const bool has_block = needed_now ? MakeRoom(draft, s) : first_served && memory_.HasBlock();
    if (!has_block) break;
    for (uint32_t g = 0; g < memory_.group_count(); ++g) {
      s.table[g].push_back(memory_.Allocate(g));
      Grant(draft, s, g, s.granted_blocks);
    }
    ++s.granted_blocks;
    s.last_step = draft.record.step;
  }
  return std::min(tokens, s.granted_blocks * block_tokens);
}

// True if a page of each group is there for `needy`, after preempting others if must be. Pages that
// steps in flight are about to free are waited for instead.
bool Scheduler::MakeRoom(Draft& draft, LiveSequence& needy) {
  if (short_ != nullptr && short_->urgency < needy.urgency) return false;
  while (!memory_.HasBlock()) {
    LiveSequence* victim = memory_.WillHaveBlock() ? nullptr : FindVictim(needy);
    if (victim == nullptr) {
      short_ = &needy;
      return false;
    }
    Preempt(draft, *victim);
  }
  if (short_ == &needy) short_ = nullptr;
  return true;
}

LiveSequence* Scheduler::FindVictim(const LiveSequence& needy) {
  std::vector<LiveSequence*> holders;
  std::vector<VictimCandidate> candidates;
  for (size_t place = holders_.places(); place-- > 0;) {
    LiveSequence* s = holders_.at(place);
    if (s == nullptr) continue;
    if (!(needy.urgency < s->urgency)) break;
    if (IsVictimFound(candidates, s->urgency)) break;
    holders.push_back(s);
    VictimCandidate& candidate = candidates.emplace_back();
    candidate.urgency = s->urgency;
    for (uint32_t g = 0; g < memory_.group_count(); ++g) {
      const PagePool& pool = memory_.pool(g);
      if (pool.available() + pool.cooling() > 0) continue;
      for (const PageId page : s->table[g]) {
        if (page != kNoPageId && pool.refs(page) == 1) ++candidate.pages_freed;
      }
    }
  }
  const std::optional<size_t> victim = ChooseVictim(needy.urgency, candidates);
  return victim ? holders[*victim] : nullptr;
}

void Scheduler::Preempt(Draft& draft, LiveSequence& s) {
  const bool runs = s.runs();
  const bool in_draft = s.last_step == draft.record.step;
  Detach(s);
  if (runs && !in_draft) {
    // Its pages may be granted in this very plan, so the worker must drop the slot first.
    draft.plan.add_finished_slots(finished_slots_.back());
    free_slots_.push_back(finished_slots_.back());
    finished_slots_.pop_back();
  }
  ReleaseForks(s);
  ++s.figures.preemptions;
  counters_.set_preemptions(counters_.preemptions() + 1);
  Enqueue(s);
}

void Scheduler::AddTransfers(Draft& draft) {
  while (transfers_.under_way() < config_.max_transfers_in_flight) {
    std::optional<Transfer> next = transfers_.TakeWaiting();
    if (!next) break;
    if (!next->is_load()) {
      const PrefixEntry* entry = memory_.Find(next->key);
      if (entry == nullptr || entry->pages[next->group] == kNoPageId) continue;
      next->page = entry->pages[next->group];
    }
    memory_.Ref(next->group, next->page);
    if (next->is_fill()) {
      draft.plan.add_fill_group(next->group);
      draft.plan.add_fill_host_page(next->host_page);
      draft.plan.add_fill_page(next->page);
      draft.plan.add_fill_id(transfers_.Start(*std::move(next)));
      continue;
    }
    v1::BlockTransfer& message =
        next->is_load() ? *draft.plan.add_loads() : *draft.plan.add_stores();
    message.set_block_key(next->key.ToString());
    message.set_tenant_namespace(*next->tenant_namespace);
    message.set_group(next->group);
    message.set_page(next->page);
    message.set_id(transfers_.Start(*std::move(next)));
  }
}

void Scheduler::DecideSpilling() {
  if (memory_.host_pool(0).total() == 0) return;
  uint64_t block_bytes = 0;
  for (const KvGroupInfo& group : replica_.groups) block_bytes += group.page_bytes;
  const bool keeps =
      ShouldKeep(host_meter_.rates(), meter_.rates(), replica_.block_tokens, block_bytes);
  if (!keeps) host_meter_.ObserveDecline();
  memory_.SetSpilling(keeps);
}

// A page that waits to be loaded is not touched before that, so its spill may wait too: it leaves
// straight from the page when the fill comes, in no step's way. Unless this plan's fills read it.
void Scheduler::AddSpills(Draft& draft) {
  using Place = std::pair<uint32_t, PageId>;
  absl::flat_hash_set<Place> waiting;
  absl::flat_hash_set<Place> read;
  if (memory_.has_spills()) {
    for (const Transfer& load : transfers_.waiting_loads()) waiting.insert({load.group, load.page});
    for (int i = 0; i < draft.plan.fill_id_size(); ++i) {
      read.insert({draft.plan.fill_group(i), draft.plan.fill_host_page(i)});
    }
  }
  const std::vector<KvMemory::Spill> due = memory_.TakeSpills([&](const KvMemory::Spill& spill) {
    return !waiting.contains({spill.group, spill.page}) ||
           read.contains({spill.group, spill.host_page});
  });
  for (const KvMemory::Spill& spill : due) {
    draft.plan.add_spill_group(spill.group);
    draft.plan.add_spill_page(spill.page);
    draft.plan.add_spill_host_page(spill.host_page);
    counters_.set_blocks_spilled(counters_.blocks_spilled() + 1);
    counters_.set_bytes_spilled(counters_.bytes_spilled() +
                                replica_.groups[spill.group].page_bytes);
  }
}

}  // namespace troupe
