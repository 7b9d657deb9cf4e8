// Sequences that come with the state that another session computed. See scheduler.h.

#include <utility>

#include "base/check.h"
#include "base/status_util.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {

// What retired steps computed does not change any more: steps in flight write behind it.
std::optional<KeptState> Scheduler::StateOf(const LiveSequence& s) const {
  if (s.computed == 0) return std::nullopt;
  KeptState kept{.epoch = epoch_, .computed = s.computed};
  const uint32_t blocks = (kept.computed + replica_.block_tokens - 1) / replica_.block_tokens;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    CHECK_GE(s.table[g].size(), blocks);
    kept.table[g].assign(s.table[g].begin(), s.table[g].begin() + blocks);
  }
  return kept;
}

absl::Status Scheduler::Resume(SequenceRequest request) {
  const uint64_t id = request.id;
  const std::optional<KeptState> kept = std::exchange(request.kept, std::nullopt);
  TROUPE_RETURN_IF_ERROR(Add(std::move(request)));
  if (kept.has_value() && CanTake(*kept, Find(id)->request)) TakeKept(*Find(id), *kept);
  return absl::OkStatus();
}

bool Scheduler::CanTake(const KeptState& kept, const SequenceRequest& request) const {
  if (last_step_ > 0 || kept.computed == 0 || kept.computed >= request.tokens.size()) return false;
  const uint32_t blocks = (kept.computed + replica_.block_tokens - 1) / replica_.block_tokens;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    if (kept.table[g].size() != blocks) return false;
    const uint32_t first = replica_.groups[g].FirstBlock(kept.computed, replica_.block_tokens);
    for (uint32_t block = 0; block < blocks; ++block) {
      const PageId page = kept.table[g][block];
      if (page == kNoPageId ? block >= first : page >= memory_.pool(g).total()) return false;
    }
  }
  return true;
}

void Scheduler::TakeKept(LiveSequence& s, const KeptState& kept) {
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    s.table[g] = kept.table[g];
    for (const PageId page : s.table[g]) {
      if (page != kNoPageId) memory_.Take(g, page);
    }
    s.first_held[g] = 0;
    while (s.first_held[g] < s.table[g].size() && s.table[g][s.first_held[g]] == kNoPageId) {
      ++s.first_held[g];
    }
  }
  s.granted_blocks = static_cast<uint32_t>(s.table[0].size());
  s.planned = s.computed = kept.computed;
  kept_.push_back(s.request.id);
}

// They were running: all of them fit, unless the new session allows fewer.
void Scheduler::StartKept(Draft& draft, int64_t now_us) {
  for (const uint64_t id : std::exchange(kept_, {})) {
    LiveSequence* s = Find(id);
    if (s == nullptr) continue;  // cancelled
    if (running() >= batch_limit_ || free_slots_.empty()) {
      Detach(*s);
      Enqueue(*s);
      continue;
    }
    queue_.Remove(*s->tenant, s->urgency);
    ++s->tenant->running;
    s->figures.admitted_us = now_us;
    const uint32_t complete = s->computed / replica_.block_tokens;
    for (uint32_t g = 0; g < memory_.group_count() && s->request.use_cache; ++g) {
      for (uint32_t block = s->first_held[g]; block < complete; ++block) {
        memory_.Publish(s->keys[block], g, s->table[g][block]);
      }
    }
    Start(draft, *s, s->computed);
    counters_.set_tokens_kept(counters_.tokens_kept() + s->computed);
  }
}

}  // namespace troupe
