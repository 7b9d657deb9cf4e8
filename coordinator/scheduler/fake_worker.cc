#include "coordinator/scheduler/fake_worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace troupe::testing {
namespace {

constexpr Tag kGarbage = 0xdead;

Tag Mix(Tag a, Tag b) {
  Tag x = a * 0x9e3779b97f4a7c15ull + b + 0x7f4a7c15;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ull;
  return x ^ (x >> 29);
}

}  // namespace

Tag RootTag(const std::string& tenant_namespace, const v1::GateSetting& gate) {
  return Mix(std::hash<std::string>()(tenant_namespace),
             Mix(std::bit_cast<uint32_t>(gate.threshold()),
                 std::bit_cast<uint32_t>(gate.adaptive_mass())));
}

Tag NextTag(Tag prefix, uint32_t token) { return Mix(prefix, token + 1); }

uint32_t ExpectedToken(Tag prefix, uint64_t seed, uint32_t vocabulary) {
  return static_cast<uint32_t>(Mix(prefix, seed ^ 0x5eed) % vocabulary);
}

FakeWorker::FakeWorker(const Config& config, ReplicaInfo replica, uint64_t epoch, FakeCache& cache,
                       uint32_t seed)
    : config_(config),
      replica_(std::move(replica)),
      epoch_(epoch),
      cache_(cache),
      random_(seed),
      slots_(replica_.max_rows) {
  for (const KvGroupInfo& group : replica_.groups) {
    pages_.emplace_back(group.page_count,
                        Page{.tags = std::vector<Tag>(replica_.block_tokens, kGarbage)});
    host_pages_.emplace_back(group.host_page_count,
                             std::vector<Tag>(replica_.block_tokens, kGarbage));
  }
}

void FakeWorker::CheckPage(uint32_t group, uint32_t page) const {
  CHECK_LT(group, replica_.groups.size());
  CHECK_LT(page, replica_.groups[group].page_count);
}

// Pages that the rows of a plan in flight read or write, as far as the slots know them now.
std::set<FakeWorker::PageName> FakeWorker::PagesOfRows(const v1::StepPlan& plan,
                                                       std::set<uint32_t>& renewed) const {
  std::set<PageName> pages;
  for (const v1::NewSequence& message : plan.new_sequences()) renewed.insert(message.slot());
  for (int i = 0; i < plan.row_slot_size(); ++i) {
    if (renewed.contains(plan.row_slot(i))) continue;  // the slot still has its last sequence
    const Slot& slot = slots_[plan.row_slot(i)];
    for (uint32_t g = 0; g < slot.table.size(); ++g) {
      const uint32_t first =
          replica_.groups[g].FirstBlock(plan.row_start(i), replica_.block_tokens);
      for (const auto& [block, page] : slot.table[g]) {
        if (block >= first) pages.insert({g, page});
      }
    }
  }
  for (int i = 0; i < plan.grant_slot_size(); ++i) {
    pages.insert({plan.grant_group(i), plan.grant_page(i)});
  }
  for (int i = 0; i < plan.copy_group_size(); ++i) {
    pages.insert({plan.copy_group(i), plan.copy_from_page(i)});
    pages.insert({plan.copy_group(i), plan.copy_to_page(i)});
  }
  return pages;
}

void FakeWorker::CheckNotInFlight(uint32_t group, uint32_t page, const char* what) const {
  std::set<uint32_t> renewed;
  for (const v1::StepPlan& plan : steps_) {
    EXPECT_FALSE(PagesOfRows(plan, renewed).contains({group, page}))
        << what << " of page " << page << " of group " << group << " which step " << plan.step()
        << " in flight uses";
  }
  for (const RunningTransfer& transfer : transfers_) {
    EXPECT_FALSE(transfer.message.group() == group && transfer.message.page() == page)
        << what << " of page " << page << " of group " << group << " under transfer";
  }
}

void FakeWorker::Reopen(uint64_t epoch) {
  epoch_ = epoch;
  slots_.assign(slots_.size(), Slot());
  steps_.clear();
  transfers_.clear();
  transfer_ids_.clear();
  last_step_ = 0;
}

void FakeWorker::Accept(const v1::StepPlan& plan) {
  EXPECT_EQ(plan.epoch(), epoch_);
  EXPECT_EQ(plan.step(), last_step_ + 1);
  last_step_ = plan.step();
  EXPECT_LE(plan.row_slot_size(), static_cast<int>(replica_.max_rows));
  for (int i = 0; i < plan.copy_group_size(); ++i) {
    CheckNotInFlight(plan.copy_group(i), plan.copy_to_page(i), "copy");
  }
  ApplySpills(plan);
  BeginLoads(plan);
  for (int i = 0; i < plan.fill_id_size(); ++i) {
    CheckPage(plan.fill_group(i), plan.fill_page(i));
    CheckNotInFlight(plan.fill_group(i), plan.fill_page(i), "fill");
  }
  steps_.push_back(plan);
}

void FakeWorker::BeginLoads(const v1::StepPlan& plan) {
  for (const v1::BlockTransfer& load : plan.loads()) {
    CheckPage(load.group(), load.page());
    CheckNotInFlight(load.group(), load.page(), "load");
    EXPECT_TRUE(transfer_ids_.insert(load.id()).second);
    Page& page = pages_[load.group()][load.page()];
    std::fill(page.tags.begin(), page.tags.end(), kGarbage);
    transfers_.push_back({.message = load, .is_load = true, .step = plan.step()});
  }
  EXPECT_LE(transfers_.size() + plan.stores_size(), config_.max_transfers);
}

v1::StepResult FakeWorker::Run() {
  const v1::StepPlan plan = std::move(steps_.front());
  steps_.pop_front();
  v1::StepResult result;
  result.set_epoch(epoch_);
  result.set_step(plan.step());
  BeginFills(plan);
  for (const uint32_t slot : plan.finished_slots()) {
    EXPECT_TRUE(slots_[slot].live) << "slot " << slot << " finished twice";
    slots_[slot].live = false;
  }
  ApplyNew(plan);
  ApplyGrants(plan);
  ApplyCopies(plan);
  uint32_t tokens = 0;
  std::set<uint32_t> rows;
  for (int i = 0; i < plan.row_slot_size(); ++i) {
    EXPECT_TRUE(rows.insert(plan.row_slot(i)).second) << "two rows of slot " << plan.row_slot(i);
    tokens += plan.row_count(i);
    RunRow(plan, i, result);
  }
  EXPECT_LE(tokens, replica_.max_step_tokens);
  tokens_computed_ += tokens;
  BeginStores(plan);
  EndTransfers(plan, result);
  result.set_forward_us(config_.forward_us(tokens));
  return result;
}

// Nobody changes a page that is spilled, so that it does not matter when it is read.
void FakeWorker::ApplySpills(const v1::StepPlan& plan) {
  for (int i = 0; i < plan.spill_group_size(); ++i) {
    const uint32_t group = plan.spill_group(i);
    CheckPage(group, plan.spill_page(i));
    CheckNotInFlight(group, plan.spill_page(i), "spill");
    CHECK_LT(plan.spill_host_page(i), host_pages_[group].size());
    for (const RunningTransfer& transfer : transfers_) {
      EXPECT_FALSE(transfer.message.group() == group &&
                   transfer.host_page == plan.spill_host_page(i))
          << "host page " << transfer.host_page << " is overwritten while a fill reads it";
    }
    host_pages_[group][plan.spill_host_page(i)] = pages_[group][plan.spill_page(i)].tags;
  }
}

void FakeWorker::BeginFills(const v1::StepPlan& plan) {
  for (int i = 0; i < plan.fill_id_size(); ++i) {
    EXPECT_TRUE(transfer_ids_.insert(plan.fill_id(i)).second);
    CHECK_LT(plan.fill_host_page(i), host_pages_[plan.fill_group(i)].size());
    RunningTransfer fill = {.is_load = true, .step = plan.step()};
    fill.message.set_id(plan.fill_id(i));
    fill.message.set_group(plan.fill_group(i));
    fill.message.set_page(plan.fill_page(i));
    fill.host_page = plan.fill_host_page(i);
    std::vector<Tag>& tags = pages_[plan.fill_group(i)][plan.fill_page(i)].tags;
    std::fill(tags.begin(), tags.end(), kGarbage);
    transfers_.push_back(std::move(fill));
  }
  EXPECT_LE(transfers_.size() + plan.stores_size(), config_.max_transfers);
}

void FakeWorker::ApplyNew(const v1::StepPlan& plan) {
  for (const v1::NewSequence& message : plan.new_sequences()) {
    CHECK_LT(message.slot(), slots_.size());
    Slot& slot = slots_[message.slot()];
    EXPECT_FALSE(slot.live) << "slot " << message.slot() << " is taken";
    slot = Slot{.live = true, .instance = ++last_instance_};
    slot.seed = message.sampling().seed();
    slot.root = RootTag(std::to_string(slot.seed >> 32), message.gate());
    slot.tokens.assign(message.tokens().begin(), message.tokens().end());
    slot.tags = {slot.root};
    for (const uint32_t token : slot.tokens) slot.tags.push_back(NextTag(slot.tags.back(), token));
    slot.table.resize(replica_.groups.size());
  }
}

void FakeWorker::ApplyGrants(const v1::StepPlan& plan) {
  for (int i = 0; i < plan.grant_slot_size(); ++i) {
    CheckPage(plan.grant_group(i), plan.grant_page(i));
    Slot& slot = slots_[plan.grant_slot(i)];
    EXPECT_TRUE(slot.live) << "grant to slot " << plan.grant_slot(i);
    auto& table = slot.table[plan.grant_group(i)];
    EXPECT_TRUE(table.emplace(plan.grant_block(i), plan.grant_page(i)).second)
        << "block " << plan.grant_block(i) << " granted twice";
    EXPECT_GE(plan.grant_block(i),
              replica_.groups[plan.grant_group(i)].FirstBlock(slot.next, replica_.block_tokens))
        << "a block behind the window";
  }
}

void FakeWorker::ApplyCopies(const v1::StepPlan& plan) {
  for (int i = 0; i < plan.copy_group_size(); ++i) {
    const uint32_t group = plan.copy_group(i);
    CheckPage(group, plan.copy_from_page(i));
    CheckPage(group, plan.copy_to_page(i));
    pages_[group][plan.copy_to_page(i)].tags = pages_[group][plan.copy_from_page(i)].tags;
  }
}

void FakeWorker::RunRow(const v1::StepPlan& plan, int row, v1::StepResult& result) {
  const uint32_t index = plan.row_slot(row);
  Slot& slot = slots_[index];
  ASSERT_TRUE(slot.live) << "row of slot " << index;
  const uint32_t start = plan.row_start(row);
  const uint32_t end = start + plan.row_count(row);
  EXPECT_TRUE(!slot.started || start == slot.next) << "rows of slot " << index << " have a gap";
  ASSERT_GT(plan.row_count(row), 0u);
  ASSERT_LE(end, slot.tokens.size()) << "tokens that nobody knows";
  ASSERT_LE(end, replica_.max_context);
  slot.started = true;
  for (uint32_t position = start; position < end; ++position) WriteToken(slot, index, position);
  CheckReads(slot, start);
  slot.next = end;
  result.add_row_heads_skipped(plan.row_count(row) * 3);
  if (end < slot.tokens.size()) return;
  const uint32_t token = ExpectedToken(slot.tags[end], slot.seed & 0xffffffff, config_.vocabulary);
  slot.tokens.push_back(token);
  slot.tags.push_back(NextTag(slot.tags.back(), token));
  result.add_sampled_slot(index);
  result.add_sampled_token(token);
}

void FakeWorker::WriteToken(Slot& slot, uint32_t slot_index, uint32_t position) {
  const uint32_t block = position / replica_.block_tokens;
  for (uint32_t g = 0; g < slot.table.size(); ++g) {
    const auto it = slot.table[g].find(block);
    ASSERT_TRUE(it != slot.table[g].end()) << "block " << block << " was not granted";
    const uint32_t page = it->second;
    pages_[g][page].tags[position % replica_.block_tokens] = slot.tags[position + 1];
    for (uint32_t other = 0; other < slots_.size(); ++other) {
      if (other == slot_index || !slots_[other].live) continue;
      const uint32_t first =
          replica_.groups[g].FirstBlock(slots_[other].next, replica_.block_tokens);
      for (const auto& [b, p] : slots_[other].table[g]) {
        EXPECT_FALSE(b >= first && p == page) << "page " << page << " of slot " << slot_index
                                              << " is written while slot " << other << " has it";
      }
    }
    for (const RunningTransfer& transfer : transfers_) {
      EXPECT_FALSE(transfer.message.group() == g && transfer.message.page() == page)
          << "page " << page << " is written while it is moved";
    }
  }
}

// Everything that the token at `position` sees must be there; the row's later tokens see the same
// and the row's own, which were just written.
void FakeWorker::CheckReads(const Slot& slot, uint32_t position) {
  for (uint32_t g = 0; g < slot.table.size(); ++g) {
    const uint32_t window = replica_.groups[g].window_tokens;
    const uint32_t first = window == 0 || position + 1 <= window ? 0 : position + 1 - window;
    for (uint32_t t = first; t < position; ++t) {
      const auto it = slot.table[g].find(t / replica_.block_tokens);
      ASSERT_TRUE(it != slot.table[g].end())
          << "token " << position << " sees block " << t / replica_.block_tokens << " of group "
          << g << ", which was not granted";
      ASSERT_EQ(pages_[g][it->second].tags[t % replica_.block_tokens], slot.tags[t + 1])
          << "page " << it->second << " of group " << g << " holds something else at token " << t;
    }
  }
}

void FakeWorker::BeginStores(const v1::StepPlan& plan) {
  for (const v1::BlockTransfer& store : plan.stores()) {
    CheckPage(store.group(), store.page());
    EXPECT_TRUE(transfer_ids_.insert(store.id()).second);
    transfers_.push_back(
        {.message = store, .step = plan.step(), .tags = pages_[store.group()][store.page()].tags});
  }
}

// Transfers of plans that have not run yet go on; of the others some end.
void FakeWorker::EndTransfers(const v1::StepPlan& plan, v1::StepResult& result) {
  std::vector<RunningTransfer> left;
  for (RunningTransfer& transfer : transfers_) {
    if (transfer.step > plan.step() || random_() % 100 >= config_.transfer_end) {
      left.push_back(std::move(transfer));
    } else {
      *result.add_transfers() = End(transfer);
    }
  }
  transfers_ = std::move(left);
}

v1::TransferDone FakeWorker::End(const RunningTransfer& transfer) {
  const v1::BlockTransfer& message = transfer.message;
  Page& page = pages_[message.group()][message.page()];
  const std::pair key(message.block_key(), message.group());
  v1::TransferDone done;
  done.set_id(message.id());
  done.set_duration_us(500);
  done.set_outcome(v1::TransferDone::OUTCOME_DONE);
  if (transfer.host_page != kNoPageId) {
    ++pages_filled_;
    page.tags = host_pages_[message.group()][transfer.host_page];
    done.set_bytes(replica_.groups[message.group()].page_bytes);
  } else if (random_() % 100 < config_.transfer_failure) {
    done.set_outcome(v1::TransferDone::OUTCOME_FAILED);
  } else if (transfer.is_load) {
    const auto it = cache_.find(key);
    if (it == cache_.end() || random_() % 100 < config_.load_miss) {
      done.set_outcome(v1::TransferDone::OUTCOME_MISS);
    } else {
      page.tags = it->second;
      done.set_bytes(replica_.groups[message.group()].page_bytes);
    }
  } else {
    EXPECT_EQ(page.tags, transfer.tags) << "page " << message.page() << " changed while stored";
    const auto [it, added] = cache_.emplace(key, page.tags);
    EXPECT_TRUE(added || it->second == page.tags) << "one key for two contents";
    done.set_bytes(replica_.groups[message.group()].page_bytes);
  }
  return done;
}

}  // namespace troupe::testing
