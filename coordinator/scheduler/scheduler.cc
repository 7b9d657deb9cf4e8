#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "coordinator/scheduler/prefix_boundary.h"
#include "coordinator/scheduler/token_limit.h"

namespace troupe {

absl::Status Scheduler::Config::Validate() const {
  const auto positive = [](absl::string_view name, double value) {
    if (value > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", must be positive"));
  };
  for (const absl::Status& status :
       {positive("max_batch_size", max_batch_size),
        positive("max_steps_in_flight", max_steps_in_flight), positive("max_waiting", max_waiting),
        positive("min_chunk_tokens", min_chunk_tokens),
        positive("ageing_us_per_level", static_cast<double>(ageing_us_per_level)),
        positive("output_token_cost", output_token_cost),
        positive("max_transfers_in_flight", max_transfers_in_flight),
        positive("load_poll_us", static_cast<double>(load_poll_us)),
        positive("store_poll_us", static_cast<double>(store_poll_us)),
        positive("1 + min_batch_delay_us", 1.0 + static_cast<double>(min_batch_delay_us)),
        positive("1 + mixed_prefill_us", 1.0 + static_cast<double>(mixed_prefill_us))}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

Scheduler::Scheduler(const Config& config, ReplicaInfo replica, uint64_t epoch)
    : config_(config),
      replica_(std::move(replica)),
      epoch_(epoch),
      batch_limit_(std::min({config.max_batch_size, replica_.max_rows, replica_.max_step_tokens})),
      memory_(replica_),
      slots_(replica_.max_rows) {
  CHECK_OK(config.Validate());
  for (uint32_t slot = replica_.max_rows; slot-- > 0;) free_slots_.push_back(slot);
}

absl::Status Scheduler::CheckAdd(const SequenceRequest& request) const {
  if (evacuated_) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker '", replica_.worker, "' is lost; add the sequence to another"));
  }
  if (sequences_.contains(request.id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("sequence ", request.id, " is live on worker '", replica_.worker, "'"));
  }
  if (waiting() >= config_.max_waiting) {
    return absl::ResourceExhaustedError(absl::StrCat(waiting(), " sequences wait for worker '",
                                                     replica_.worker, "', at most ",
                                                     config_.max_waiting, " may; retry later"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Add(SequenceRequest request) {
  if (absl::Status status = CheckAdd(request); !status.ok()) return status;
  const absl::StatusOr<uint32_t> limit = TokenLimit(request, replica_);
  if (!limit.ok()) return limit.status();
  request.kept.reset();
  Enqueue(Insert(std::move(request), *limit));
  return absl::OkStatus();
}

absl::Status Scheduler::Fork(uint64_t parent_id, SequenceRequest fork) {
  if (absl::Status status = CheckAdd(fork); !status.ok()) return status;
  LiveSequence* parent = Find(parent_id);
  if (parent == nullptr) {
    return absl::NotFoundError(absl::StrCat("no live sequence ", parent_id, " to fork"));
  }
  SequenceRequest request = parent->request;
  request.id = fork.id;
  request.sampling = std::move(fork.sampling);
  request.max_output_tokens = fork.max_output_tokens;
  request.arrival_us = fork.arrival_us;
  const absl::StatusOr<uint32_t> limit = TokenLimit(request, replica_);
  if (!limit.ok()) return limit.status();

  LiveSequence& child = Insert(std::move(request), *limit);
  child.fork_parent = parent_id;
  if (parent->computed + 1 >= child.token_count) {
    Enqueue(child);
  } else {
    child.phase = LiveSequence::Phase::kHeld;
    ++held_;
    parent->held_forks.push_back(child.request.id);
    parent->has_held_forks = true;
  }
  return absl::OkStatus();
}

LiveSequence& Scheduler::Insert(SequenceRequest request, uint32_t limit_tokens) {
  auto made = std::make_unique<LiveSequence>();
  LiveSequence& s = *made;
  s.limit_tokens = limit_tokens;
  s.urgency =
      MakeUrgency(request.priority, request.arrival_us, request.id, config_.ageing_us_per_level);
  s.tenant_namespace = std::make_shared<const std::string>(request.tenant_namespace);
  if (request.use_cache) {
    s.root = RootKey(replica_.identity, request.tenant_namespace, request.gate);
    s.keys = BlockKeys(s.root, request.tokens, replica_.block_tokens);
  }
  s.request = std::move(request);
  s.token_count = static_cast<uint32_t>(s.request.tokens.size());
  sequences_.emplace(s.request.id, std::move(made));
  return s;
}

void Scheduler::Enqueue(LiveSequence& s) {
  if (queue_.waiting() == 0) batch_opened_us_ = s.request.arrival_us;
  s.phase = LiveSequence::Phase::kWaiting;
  s.tenant = &queue_.Activate(s.request.tenant, s.request.tenant_weight);
  queue_.Push(*s.tenant, s.urgency, &s);
}

LiveSequence* Scheduler::Find(uint64_t sequence) {
  const auto it = sequences_.find(sequence);
  return it == sequences_.end() ? nullptr : it->second.get();
}

bool Scheduler::Cancel(uint64_t sequence) {
  LiveSequence* s = Find(sequence);
  if (s == nullptr) return false;
  Remove(*s);
  return true;
}

// Takes `s` out of the phase it is in; it holds nothing afterwards.
void Scheduler::Detach(LiveSequence& s) {
  switch (s.phase) {
    case LiveSequence::Phase::kHeld:
      --held_;
      break;
    case LiveSequence::Phase::kWaiting:
      queue_.Remove(*s.tenant, s.urgency);
      break;
    case LiveSequence::Phase::kLoading:
      for (const Transfer& load : transfers_.DropLoads(s.load_batch)) {
        if (load.is_fill()) memory_.UnrefHost(load.group, load.host_page);
      }
      CHECK_EQ(loading_.erase(s.load_batch), 1u);
      holders_.Remove(s.urgency);
      --s.tenant->running;
      break;
    case LiveSequence::Phase::kRunning:
      holders_.Remove(s.urgency);
      slots_[s.slot].sequence = nullptr;
      finished_slots_.push_back(s.slot);
      --s.tenant->running;
      break;
  }
  // The last block first: it is the first to be forgotten, and is of no use without those before.
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    for (size_t block = s.table[g].size(); block-- > 0;) {
      if (s.table[g][block] != kNoPageId) memory_.Unref(g, s.table[g][block], s.last_step);
    }
    s.table[g].clear();
    s.first_held[g] = 0;
  }
  s.planned = s.computed = s.samples_in_flight = s.granted_blocks = s.published_blocks = 0;
  s.loads_outstanding = 0;
  s.load_batch = 0;
  s.blocks_loaded.clear();
  if (short_ == &s) short_ = nullptr;
}

void Scheduler::Remove(LiveSequence& s) {
  Detach(s);
  ReleaseForks(s);
  const uint64_t id = s.request.id;
  sequences_.erase(id);
}

// The parent has computed what its held forks share, or never will.
void Scheduler::ReleaseForks(LiveSequence& parent) {
  parent.has_held_forks = false;
  for (const uint64_t id : std::exchange(parent.held_forks, {})) {
    LiveSequence* child = Find(id);
    if (child == nullptr || child->phase != LiveSequence::Phase::kHeld) continue;
    --held_;
    Enqueue(*child);
  }
}

std::vector<SequenceRequest> Scheduler::Evacuate() {
  std::vector<LiveSequence*> all;
  for (const auto& [id, s] : sequences_) all.push_back(s.get());
  std::sort(all.begin(), all.end(), MoreUrgent);
  std::vector<SequenceRequest> requests;
  requests.reserve(all.size());
  for (LiveSequence* s : all) {
    s->request.kept = StateOf(*s);
    Detach(*s);
    requests.push_back(std::move(s->request));
  }
  sequences_.clear();
  steps_.clear();
  finished_slots_.clear();
  transfers_ = TransferBook();
  held_ = 0;
  evacuated_ = true;
  return requests;
}

uint32_t Scheduler::CountLocalBlocks(absl::Span<const BlockKey> keys) const {
  return LongestBoundary(replica_, static_cast<uint32_t>(keys.size()),
                         [&](uint32_t block) { return memory_.HeldAnywhere(keys[block]); });
}

void Scheduler::Describe(v1::WorkerStatus& status) const {
  status.MergeFrom(counters_);
  status.set_worker(replica_.worker);
  status.set_epoch(epoch_);
  status.set_running(running());
  status.set_waiting(waiting());
  for (uint32_t g = 0; g < memory_.group_count(); ++g) {
    v1::GroupStatus& group = *status.add_groups();
    group.set_name(replica_.groups[g].name);
    group.set_pages_total(memory_.pool(g).total());
    group.set_pages_used(memory_.pool(g).used());
    group.set_pages_cached(memory_.pool(g).cached());
    group.set_host_pages_total(memory_.host_pool(g).total());
    group.set_host_pages_cached(memory_.host_pool(g).cached() + memory_.host_pool(g).used());
  }
}

std::vector<v1::TenantStatus> Scheduler::DescribeTenants() const {
  std::vector<v1::TenantStatus> all;
  for (const auto& [name, tenant] : queue_.tenants()) {
    v1::TenantStatus& status = all.emplace_back();
    status.set_tenant(name);
    status.set_running(tenant.running);
    status.set_waiting(static_cast<uint32_t>(tenant.waiting.size()));
    status.set_tokens_served(tenant.tokens_served);
  }
  return all;
}

}  // namespace troupe
