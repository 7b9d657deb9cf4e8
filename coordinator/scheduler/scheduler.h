// Decides what one replica computes in each step: which sequences run, which tokens of them, in
// which pages their state lies, what is loaded from and stored to the cache service, and what moves
// between device and host memory.
//
// A state machine without I/O, clock or threads: time comes in as an argument (microseconds of any
// one time line, never going back), plans go out, results come in. The owner's loop is
//
//     while (auto plan = scheduler.Plan(now)) Send(*plan);      // up to max_steps_in_flight ahead
//     on StepResult: events = scheduler.Retire(result, now), then plan again
//     on a timer at NextWakeup(now), and after Add, Fork or Cancel: plan again
//
// Steps are planned before the results of the previous ones are known: a decode row counts on one
// token sampled in the step before. If that step ends the sequence, the row is wasted and its
// result ignored. The same calls with the same arguments give the same plans.
//
// How it decides, each in a pure function beside this file:
//   priority.h       who comes first within a tenant: priority with ageing
//   fair_share.h     whose turn it is among tenants: served tokens over weight
//   chunking.h       how many prompt tokens a step takes, and of whom
//   step_pace.h      what they add to its time
//   victim.h         who gives up memory when pages run out; what host memory has not kept of it is
//                    computed again later
//   load_decision.h  whether loading cached blocks beats computing them, and keeping them pays
//   prefix_boundary.h  how much of a prefix a set of pages allows to skip
//
// Thread model: none; one owner, typically an actor. Ownership: owns all sequences given to it, and
// the replica's pages. Invariants: a page that a step in flight may touch, or a transfer moves, is
// not handed out again before that ended; the most urgent running sequence always proceeds, so
// every sequence ends in bounded steps; an error from Retire means that worker and coordinator no
// longer agree, and the only use left is Evacuate.
#ifndef TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_
#define TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/fair_share.h"
#include "coordinator/scheduler/kv_memory.h"
#include "coordinator/scheduler/live_sequence.h"
#include "coordinator/scheduler/load_decision.h"
#include "coordinator/scheduler/replica_info.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/step_pace.h"
#include "coordinator/scheduler/transfer_book.h"
#include "coordinator/scheduler/urgency_list.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

class Scheduler {
 public:
  struct Config {
    // Sequences that run at once; further bounded by the worker's rows and tokens a step.
    uint32_t max_batch_size = 16;
    // While nothing runs, wait so long after the first arrival for companions.
    int64_t min_batch_delay_us = 0;
    // Plans sent whose results are not back. 2 keeps the device busy across the network's latency.
    uint32_t max_steps_in_flight = 2;
    // Sequences that may wait; more are refused with RESOURCE_EXHAUSTED.
    uint32_t max_waiting = 4096;

    // Prompt tokens in a step that also decodes: at most `mixed_prefill_tokens`, fewer if they are
    // predicted to add more than `mixed_prefill_us` and more than decoding takes (chunking.h), but
    // always `min_chunk_tokens`. Without decode rows a step takes what the worker allows.
    uint32_t mixed_prefill_tokens = 4096;
    int64_t mixed_prefill_us = 5'000;
    uint32_t min_chunk_tokens = 16;

    // Waiting so long is worth one level of priority.
    int64_t ageing_us_per_level = 1'000'000;
    // What a generated token costs a tenant, in prompt tokens.
    double output_token_cost = 2.0;

    // Blocks moving between worker and cache service at once, loads and stores together.
    uint32_t max_transfers_in_flight = 128;
    // Blocks that wait to be stored; the oldest is dropped beyond that.
    uint32_t max_stores_waiting = 1024;
    // How soon an idle worker is asked again for transfers that ended: while sequences wait for
    // loads, and while only stores are under way.
    int64_t load_poll_us = 1'000;
    int64_t store_poll_us = 20'000;

    // INVALID_ARGUMENT names the field that is out of range.
    absl::Status Validate() const;
  };

  // `epoch` is carried by every plan and expected in every result. REQUIRES:
  // config.Validate().ok().
  Scheduler(const Config& config, ReplicaInfo replica, uint64_t epoch);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a sequence. INVALID_ARGUMENT: malformed, or can never fit (the message has the
  // arithmetic); ALREADY_EXISTS: the id is live; RESOURCE_EXHAUSTED: the queue is full, retry
  // later.
  absl::Status Add(SequenceRequest request);
  // As Add, for a worker whose pages still hold request.kept: the sequence takes those pages and
  // starts behind what they hold in the next step. All that are to be resumed come before the first
  // plan; one that comes later, or whose state does not fit this replica, starts anew.
  absl::Status Resume(SequenceRequest request);

  // Queues a sequence that goes on from the tokens that `parent` has now, usually with another
  // seed. `id`, `sampling`, `max_output_tokens` and `arrival_us` come from `fork`; tokens, tenant,
  // gate and the rest from the parent. It shares the parent's full blocks and copies the last,
  // partial one when the parent still has them as it is admitted; otherwise it computes what it
  // lacks. NOT_FOUND: no such parent. Otherwise as Add.
  absl::Status Fork(uint64_t parent, SequenceRequest fork);

  // Forgets a sequence: client gone, deadline, or its text is complete. Its memory is free for the
  // next plans as soon as no step in flight uses it. False: no such sequence, it may have ended.
  bool Cancel(uint64_t sequence);

  // The next step, or nothing: no work, or max_steps_in_flight are out, or waiting for companions.
  // The caller must send what it gets.
  std::optional<v1::StepPlan> Plan(int64_t now_us);

  // Applies the result of the oldest plan in flight; one event a row of a live sequence, in row
  // order. FAILED_PRECONDITION: the result does not answer that plan.
  absl::StatusOr<std::vector<SequenceEvent>> Retire(const v1::StepResult& result, int64_t now_us);

  // When to call Plan again although nothing was added or retired. Empty: no need.
  std::optional<int64_t> NextWakeup(int64_t now_us) const;

  // The worker is lost: all live sequences, most urgent first, each with the tokens retired so far
  // and where its state lies, for the case that the worker's pages survive; KeptState::home is the
  // caller's.
  // The scheduler is empty afterwards and plans nothing more.
  std::vector<SequenceRequest> Evacuate();

  // How many leading blocks of these keys are in the replica's memory, for routing by affinity.
  uint32_t CountLocalBlocks(absl::Span<const BlockKey> keys) const;

  // Sequences that hold memory, and those that wait for it.
  uint32_t running() const { return holders_.size(); }
  uint32_t waiting() const { return queue_.waiting() + held_; }
  uint32_t steps_in_flight() const { return static_cast<uint32_t>(steps_.size()); }
  const ReplicaInfo& replica() const { return replica_; }

  // Fills the counters, running, waiting and groups; plan_ns_total, state, address and info are the
  // caller's.
  void Describe(v1::WorkerStatus& status) const;
  // One entry for each tenant seen, by name.
  std::vector<v1::TenantStatus> DescribeTenants() const;

 private:
  struct RowInFlight {
    uint32_t slot = 0;
    uint32_t start = 0;
    uint32_t count = 0;
    bool samples = false;
  };
  // What the result says of it.
  struct RowResult {
    uint32_t heads_skipped = 0;
    int sample_index = -1;  // in the columns of rows that sampled
    bool damaged = false;
  };
  struct StepInFlight {
    uint64_t step = 0;
    std::vector<RowInFlight> rows;
    uint32_t decode_rows = 0;
    uint32_t prefill_tokens = 0;
  };
  // A plan in the making, and what must be remembered of it.
  struct Draft {
    v1::StepPlan plan;
    StepInFlight record;
    std::vector<LiveSequence*> prompts;  // running ones with more than one token to compute
  };
  struct Slot {
    LiveSequence* sequence = nullptr;
    uint64_t since_step = 0;
  };
  // Where a sequence can start, and with whose pages.
  struct Reuse {
    uint32_t start_tokens = 0;
    std::array<std::vector<PageId>, kMaxKvGroups> share;        // by block; kNoPageId: none
    std::array<std::vector<uint32_t>, kMaxKvGroups> load;       // blocks to load
    std::optional<std::array<PageId, kMaxKvGroups>> copy_from;  // the parent's partial block
    bool load_declined = false;
    bool fill_declined = false;
    double load_us = 0;  // predicted
  };
  using PageCounts = std::array<uint32_t, kMaxKvGroups>;

  // scheduler.cc: sequences come and go.
  absl::Status CheckAdd(const SequenceRequest& request) const;
  LiveSequence& Insert(SequenceRequest request, uint32_t limit_tokens);
  void Enqueue(LiveSequence& s);
  void Detach(LiveSequence& s);
  void Remove(LiveSequence& s);
  void ReleaseForks(LiveSequence& parent);
  LiveSequence* Find(uint64_t sequence);

  // scheduler_kept.cc: state that outlives a session.
  std::optional<KeptState> StateOf(const LiveSequence& s) const;
  bool CanTake(const KeptState& kept, const SequenceRequest& request) const;
  void TakeKept(LiveSequence& s, const KeptState& kept);
  void StartKept(Draft& draft, int64_t now_us);

  // scheduler_plan.cc: one step.
  bool IsWaitingForCompanions(int64_t now_us) const;
  std::optional<int64_t> PollAt() const;
  Draft BeginStep();
  void AddDecodeRows(Draft& draft);
  void AddPrefillRows(Draft& draft);
  void AddChunks(Draft& draft, const std::vector<LiveSequence*>& prompts, uint32_t budget);
  void AddTransfers(Draft& draft);
  void DecideSpilling();
  void AddSpills(Draft& draft);
  void AddRow(Draft& draft, LiveSequence& s, uint32_t count);
  uint32_t Grow(Draft& draft, LiveSequence& s, uint32_t tokens);
  bool MakeRoom(Draft& draft, LiveSequence& needy);
  LiveSequence* FindVictim(const LiveSequence& needy);
  void Preempt(Draft& draft, LiveSequence& s);

  // scheduler_admit.cc: who starts to run, and from where.
  void Admit(Draft& draft, int64_t now_us);
  bool TryAdmit(Draft& draft, LiveSequence& s, int64_t now_us);
  std::optional<Reuse> ReuseParent(const LiveSequence& s);
  Reuse ReusePrefix(const LiveSequence& s) const;
  double ListLoads(const LiveSequence& s, uint32_t boundary, Reuse& reuse) const;
  void SharePrefix(const LiveSequence& s, uint32_t local_boundary, uint32_t boundary,
                   Reuse& reuse) const;
  PageCounts PagesWanted(const LiveSequence& s, const Reuse& reuse) const;
  void Promise(const LiveSequence& s);
  bool HasRoom(const PageCounts& wanted) const;
  void TakeShared(LiveSequence& s, Reuse& reuse);
  void BeginLoading(LiveSequence& s, const Reuse& reuse);
  void StartLoaded(Draft& draft);
  void Start(Draft& draft, LiveSequence& s, uint32_t start_tokens);
  void CopyPartialBlock(Draft& draft, LiveSequence& s, const Reuse& reuse);
  void Grant(Draft& draft, const LiveSequence& s, uint32_t group, uint32_t block);

  // scheduler_retire.cc: what a result changes.
  void FetchAhead(const std::vector<RowInFlight>& rows, size_t i) const;
  absl::Status CheckResult(const v1::StepResult& result) const;
  SequenceEvent RetireRow(LiveSequence& s, const RowInFlight& row, const RowResult& told,
                          const v1::StepResult& result);
  void TurnPages(LiveSequence& s);
  void PublishBlock(LiveSequence& s, uint32_t block);
  void SetPageEvent(LiveSequence& s) const;
  void EndTransfer(const v1::TransferDone& done);
  void EndLoad(const Transfer& load, const v1::TransferDone& done, uint32_t in_flight);

  const Config config_;
  const ReplicaInfo replica_;
  const uint64_t epoch_;
  const uint32_t batch_limit_;
  bool evacuated_ = false;

  absl::flat_hash_map<uint64_t, std::unique_ptr<LiveSequence>> sequences_;
  FairShare queue_;
  UrgencyList holders_;                        // those that run or load
  std::map<uint64_t, LiveSequence*> loading_;  // by load_batch
  std::vector<uint64_t> kept_;                 // sequences that wait with their state
  uint32_t held_ = 0;                          // sequences in kHeld
  int64_t batch_opened_us_ = 0;                // arrival of the first that waits
  // The most urgent running sequence that lacks a page: less urgent ones get none before it.
  LiveSequence* short_ = nullptr;
  // The head of the queue and what it lacked, so that it is looked at again only when that is
  // there.
  uint64_t blocked_sequence_ = 0;
  std::optional<PageCounts> blocked_wanted_;

  // While Admit runs: pages that are spoken for, by those that hold memory.
  PageCounts promised_ = {};

  KvMemory memory_;
  TransferBook transfers_;
  uint64_t last_load_batch_ = 0;
  RateMeter meter_;
  RateMeter host_meter_{kHostRates};  // of fills
  StepPaceMeter pace_;

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> finished_slots_;  // to be told to the worker
  std::deque<StepInFlight> steps_;
  uint64_t last_step_ = 0;
  int64_t last_contact_us_ = 0;  // last plan or result

  v1::WorkerStatus counters_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_
