// Who starts to run, and from where. See scheduler.h.

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "coordinator/scheduler/prefix_boundary.h"
#include "coordinator/scheduler/scheduler.h"

namespace troupe {
namespace {

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

}  // namespace

// Nobody is admitted past one that does not fit: pages drain to it as others end. Nor while a
// running sequence lacks a page.
void Scheduler::Admit(Draft& draft, int64_t now_us) {
  StartKept(draft, now_us);
  StartLoaded(draft);
  const auto may = [&] {
    return short_ == nullptr && running() < batch_limit_ && !free_slots_.empty() &&
           queue_.waiting() > 0;
  };
  if (may()) {
    promised_ = {};
    for (size_t i = 0; i < holders_.places(); ++i) {
      if (holders_.at(i) != nullptr) Promise(*holders_.at(i));
    }
  }
  while (may() && TryAdmit(draft, *queue_.Next(), now_us)) {
  }
  holders_.Settle();
}

bool Scheduler::TryAdmit(Draft& draft, LiveSequence& s, int64_t now_us) {
  if (running() > 0 && blocked_wanted_ && blocked_sequence_ == s.request.id &&
      !HasRoom(*blocked_wanted_)) {
    return false;
  }
  std::optional<Reuse> reuse = ReuseParent(s);
  if (!reuse) reuse = ReusePrefix(s);
  PageCounts wanted = PagesWanted(s, *reuse);
  if (!HasRoom(wanted) && running() == 0) {
    // What is shared counts too; alone, without sharing, every sequence fits.
    reuse = Reuse();
    wanted = PagesWanted(s, *reuse);
  }
  blocked_sequence_ = s.request.id;
  blocked_wanted_ = wanted;
  if (!HasRoom(wanted)) return false;
  blocked_wanted_.reset();

  queue_.Remove(*s.tenant, s.urgency);
  ++s.tenant->running;
  if (reuse->copy_from) Find(*s.fork_parent)->last_step = draft.record.step;  // it is read from
  s.fork_parent.reset();
  if (reuse->load_declined) meter_.ObserveDecline();
  if (reuse->fill_declined) host_meter_.ObserveDecline();
  if (!s.was_admitted) s.figures.admitted_us = now_us;
  TakeShared(s, *reuse);
  const bool loads = std::any_of(reuse->load.begin(), reuse->load.end(),
                                 [](const auto& blocks) { return !blocks.empty(); });
  if (loads) {
    BeginLoading(s, *reuse);
  } else {
    if (reuse->copy_from) CopyPartialBlock(draft, s, *reuse);
    Start(draft, s, reuse->start_tokens);
  }
  Promise(s);
  return true;
}

// A fork starts at its last token with its parent's pages, if the parent still has all it needs.
std::optional<Scheduler::Reuse> Scheduler::ReuseParent(const LiveSequence& s) {
  if (!s.fork_parent) return std::nullopt;
  LiveSequence* parent = Find(*s.fork_parent);
  const uint32_t start = s.length() - 1;
  if (parent == nullptr || parent->phase != LiveSequence::Phase::kRunning ||
      parent->computed < start) {
    return std::nullopt;
  }
  const uint32_t full_blocks = start / replica_.block_tokens;
  const bool partial = start % replica_.block_tokens != 0;
  Reuse reuse = {.start_tokens = start};
  if (partial) reuse.copy_from.emplace();
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    const std::vector<PageId>& table = parent->table[g];
    const uint32_t first = replica_.groups[g].FirstBlock(start, replica_.block_tokens);
    if (parent->first_held[g] > first) return std::nullopt;
    reuse.share[g].assign(full_blocks, kNoPageId);
    for (uint32_t block = first; block < full_blocks; ++block) {
      reuse.share[g][block] = table[block];
    }
    if (partial) (*reuse.copy_from)[g] = table[full_blocks];
  }
  return reuse;
}

// The longest prefix whose blocks are in the device's memory, or that can be loaded if that is
// worth it: from host memory, then from the cache service beyond that.
Scheduler::Reuse Scheduler::ReusePrefix(const LiveSequence& s) const {
  Reuse reuse;
  const uint32_t most = std::min(static_cast<uint32_t>(s.keys.size()),
                                 ReusableBlocks(s.length(), replica_.block_tokens));
  const auto here = [&](uint32_t block) { return memory_.HeldAnywhere(s.keys[block]); };
  const auto loadable = [&](uint32_t block) {
    const std::vector<uint32_t>& cached = s.request.cached_groups;
    return here(block) | (block < cached.size() ? cached[block] : 0);
  };
  const uint32_t local =
      LongestBoundary(replica_, most, [&](uint32_t block) { return memory_.Held(s.keys[block]); });
  uint32_t boundary = local;
  // False: that is not worth it.
  const auto extend = [&](uint32_t further) {
    if (further <= boundary) return true;
    Reuse longer;
    longer.load_us = ListLoads(s, further, longer);
    if (!BeatsComputing(meter_.rates(), (further - boundary) * replica_.block_tokens,
                        longer.load_us - reuse.load_us)) {
      return false;
    }
    longer.fill_declined = reuse.fill_declined;
    reuse = std::move(longer);
    boundary = further;
    return true;
  };
  reuse.fill_declined = !extend(LongestBoundary(replica_, most, here));
  if (replica_.has_cache && !s.request.cached_groups.empty()) {
    reuse.load_declined = !extend(LongestBoundary(replica_, most, loadable));
  }
  SharePrefix(s, local, boundary, reuse);
  return reuse;
}

// The blocks that a start at `boundary` needs and the device has not, and how long they may take.
double Scheduler::ListLoads(const LiveSequence& s, uint32_t boundary, Reuse& reuse) const {
  uint64_t host_bytes = 0;
  uint64_t cache_bytes = 0;
  for (uint32_t block = 0; block < boundary; ++block) {
    const PrefixEntry* entry = memory_.Find(s.keys[block]);
    for (uint32_t g = 0; g < memory_.group_count(); ++g) {
      if (entry != nullptr && (entry->held >> g & 1) != 0) continue;
      if (!IsNeeded(replica_, g, block, boundary)) continue;
      reuse.load[g].push_back(block);
      const bool hosted = entry != nullptr && (entry->hosted >> g & 1) != 0;
      (hosted ? host_bytes : cache_bytes) += replica_.groups[g].page_bytes;
    }
  }
  return PredictLoadUs(host_meter_.rates(), host_bytes) +
         PredictLoadUs(meter_.rates(), cache_bytes);
}

// Fills in the pages in memory that a start at `boundary` needs, and those for the fallback, a
// start at `local_boundary` if loading fails.
void Scheduler::SharePrefix(const LiveSequence& s, uint32_t local_boundary, uint32_t boundary,
                            Reuse& reuse) const {
  reuse.start_tokens = boundary * replica_.block_tokens;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) reuse.share[g].assign(boundary, kNoPageId);
  for (uint32_t block = 0; block < boundary; ++block) {
    const PrefixEntry* entry = memory_.Find(s.keys[block]);
    if (entry == nullptr) continue;
    for (uint32_t g = 0; g < memory_.group_count(); ++g) {
      if (IsNeeded(replica_, g, block, boundary) || IsNeeded(replica_, g, block, local_boundary)) {
        reuse.share[g][block] = entry->pages[g];
      }
    }
  }
}

// Pages that the sequence takes out of what is available to compute all of its tokens.
Scheduler::PageCounts Scheduler::PagesWanted(const LiveSequence& s, const Reuse& reuse) const {
  PageCounts wanted = {};
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    uint32_t in_use = 0;
    uint32_t unused = 0;  // reusable, but available to others so far
    for (const PageId page : reuse.share[g]) {
      if (page == kNoPageId) continue;
      ++(memory_.pool(g).refs(page) > 0 ? in_use : unused);
    }
    const uint32_t whole = replica_.PagesNeeded(g, s.length());
    const uint32_t at_once =
        static_cast<uint32_t>(reuse.load[g].size()) + (reuse.copy_from ? 1 : 0);
    const uint32_t fresh = whole > in_use + unused ? whole - in_use - unused : 0;
    wanted[g] = unused + std::max({fresh, at_once, 1u});
  }
  return wanted;
}

// Adds the pages that are spoken for by one that holds memory: those that it still needs for tokens
// it has already, and one to grow into. A window stops growing a block after it is full.
void Scheduler::Promise(const LiveSequence& s) {
  const uint32_t blocks = CeilDiv(s.length(), replica_.block_tokens);
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    const bool window = replica_.groups[g].window_tokens != 0;
    const uint32_t needed =
        window ? std::min(blocks, replica_.PagesNeeded(g, replica_.max_context)) : blocks;
    const uint32_t held = s.granted_blocks - std::min(s.granted_blocks, s.first_held[g]);
    const bool grows = !window || held <= needed;
    promised_[g] += (needed > held ? needed - held : 0) + (grows ? 1 : 0);
  }
}

bool Scheduler::HasRoom(const PageCounts& wanted) const {
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    if (memory_.pool(g).available() < wanted[g] + promised_[g]) return false;
  }
  return true;
}

void Scheduler::TakeShared(LiveSequence& s, Reuse& reuse) {
  const uint32_t blocks = reuse.start_tokens / replica_.block_tokens;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    for (const PageId page : reuse.share[g]) {
      if (page != kNoPageId) memory_.Ref(g, page);
    }
    s.table[g] = std::move(reuse.share[g]);
    s.table[g].resize(blocks, kNoPageId);
    s.first_held[g] = replica_.groups[g].FirstBlock(reuse.start_tokens, replica_.block_tokens);
  }
  s.granted_blocks = blocks;
}

void Scheduler::BeginLoading(LiveSequence& s, const Reuse& reuse) {
  s.phase = LiveSequence::Phase::kLoading;
  holders_.Add(s.urgency, &s);
  s.load_batch = ++last_load_batch_;
  s.blocks_loaded.assign(s.granted_blocks, 0);
  // A page is allocated for each, which may take another block's host page, so these are held
  // first.
  std::vector<Transfer> loads;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    for (const uint32_t block : reuse.load[g]) {
      const PrefixEntry* entry = memory_.Find(s.keys[block]);
      loads.push_back({.key = s.keys[block],
                       .tenant_namespace = s.tenant_namespace,
                       .group = g,
                       .load_batch = s.load_batch,
                       .block = block,
                       .host_page = entry == nullptr ? kNoPageId : entry->host_pages[g]});
      if (loads.back().is_fill()) memory_.RefHost(g, loads.back().host_page);
    }
  }
  s.loads_outstanding = static_cast<uint32_t>(loads.size());
  for (Transfer& load : loads) {
    load.page = s.table[load.group][load.block] = memory_.Allocate(load.group);
    transfers_.AddLoad(std::move(load));
  }
  loading_[s.load_batch] = &s;
}

// Sequences whose loads have all ended start where the pages that came allow.
void Scheduler::StartLoaded(Draft& draft) {
  for (auto it = loading_.begin(); it != loading_.end();) {
    LiveSequence& s = *it->second;
    if (s.loads_outstanding > 0 || free_slots_.empty()) {
      ++it;
      continue;
    }
    it = loading_.erase(it);
    const uint32_t boundary = LongestBoundary(replica_, s.granted_blocks, [&](uint32_t block) {
      uint32_t mask = 0;
      for (uint32_t g = 0; g < memory_.group_count(); ++g) {
        mask |= s.table[g][block] != kNoPageId ? 1u << g : 0;
      }
      return mask;
    });
    for (uint32_t g = 0; g < memory_.group_count(); ++g) {
      for (uint32_t block = s.granted_blocks; block-- > 0;) {
        PageId& page = s.table[g][block];
        if (page == kNoPageId || IsNeeded(replica_, g, block, boundary)) continue;
        memory_.Unref(g, std::exchange(page, kNoPageId), /*last_step=*/0);
      }
      s.table[g].resize(boundary);
      s.first_held[g] =
          replica_.groups[g].FirstBlock(boundary * replica_.block_tokens, replica_.block_tokens);
    }
    s.granted_blocks = boundary;
    Start(draft, s, boundary * replica_.block_tokens);
  }
}

void Scheduler::CopyPartialBlock(Draft& draft, LiveSequence& s, const Reuse& reuse) {
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    const PageId page = memory_.Allocate(g);
    s.table[g].push_back(page);
    draft.plan.add_copy_group(g);
    draft.plan.add_copy_from_page((*reuse.copy_from)[g]);
    draft.plan.add_copy_to_page(page);
  }
  ++s.granted_blocks;
}

// Gives `s` a slot; the worker learns its tokens and the pages it has so far.
void Scheduler::Start(Draft& draft, LiveSequence& s, uint32_t start_tokens) {
  if (s.phase != LiveSequence::Phase::kLoading) holders_.Add(s.urgency, &s);
  s.phase = LiveSequence::Phase::kRunning;
  s.slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[s.slot] = {&s, draft.record.step};
  s.planned = s.computed = start_tokens;
  s.published_blocks = start_tokens / replica_.block_tokens;
  s.last_step = draft.record.step;
  SetPageEvent(s);

  v1::NewSequence& message = *draft.plan.add_new_sequences();
  message.set_slot(s.slot);
  message.mutable_tokens()->Add(s.request.tokens.begin(), s.request.tokens.end());
  message.set_prompt_tokens(s.request.prompt_tokens);
  *message.mutable_sampling() = s.request.sampling;
  *message.mutable_gate() = s.request.gate;
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    for (uint32_t block = 0; block < s.table[g].size(); ++block) {
      if (s.table[g][block] != kNoPageId) Grant(draft, s, g, block);
    }
  }

  if (!s.was_admitted) {
    s.was_admitted = true;
    s.figures.cached_tokens = start_tokens;
    for (uint32_t block = 0; block < s.published_blocks; ++block) {
      const bool loaded = block < s.blocks_loaded.size() && s.blocks_loaded[block] != 0;
      ++(loaded ? s.figures.blocks_reused_cache : s.figures.blocks_reused_local);
    }
  }
  counters_.set_prompt_tokens_reused(counters_.prompt_tokens_reused() + start_tokens);
  if (s.remaining() > 1) draft.prompts.push_back(&s);
}

void Scheduler::Grant(Draft& draft, const LiveSequence& s, uint32_t group, uint32_t block) {
  draft.plan.add_grant_slot(s.slot);
  draft.plan.add_grant_group(group);
  draft.plan.add_grant_block(block);
  draft.plan.add_grant_page(s.table[group][block]);
}

}  // namespace troupe
