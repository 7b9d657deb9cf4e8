// Decides what one replica computes in each step: which sequences run, which tokens of them, in
// which pages their state lies, and what is loaded from and stored to the cache service.
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
//   victim.h         who gives up memory when pages run out; it is computed again later
//   load_decision.h  whether loading cached blocks beats computing them
//   prefix_boundary.h  how much of a prefix a set of pages allows to skip
//
// Thread model: none; one owner, typically an actor. Ownership: owns all sequences given to it, and
// the replica's pages. Invariants: a page that a step in flight may touch, or a transfer moves, is
// not handed out again before that ended; the most urgent running sequence always proceeds, so
// every sequence ends in bounded steps; an error from Retire means that worker and coordinator no
// longer agree, and the only use left is Evacuate.
#ifndef TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_
#define TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/scheduler/block_key.h"
#include "coordinator/scheduler/replica_info.h"
#include "coordinator/scheduler/sequence.h"
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
    // predicted to take longer than `mixed_prefill_us`, but always `min_chunk_tokens`. Without
    // decode rows a step takes what the worker allows.
    uint32_t mixed_prefill_tokens = 256;
    int64_t mixed_prefill_us = 5'000;
    uint32_t min_chunk_tokens = 16;

    // Waiting so long is worth one level of priority.
    int64_t ageing_us_per_level = 1'000'000;
    // What a generated token costs a tenant, in prompt tokens.
    double output_token_cost = 2.0;

    // Blocks moving between worker and cache service at once, loads and stores together.
    uint32_t max_transfers_in_flight = 32;
    // Blocks that wait to be stored; the oldest is dropped beyond that.
    uint32_t max_stores_waiting = 1024;
    // How soon an idle worker is asked again for transfers that ended: while sequences wait for
    // loads, and while only stores are under way.
    int64_t load_poll_us = 1'000;
    int64_t store_poll_us = 20'000;
  };

  // `epoch` is carried by every plan and expected in every result.
  Scheduler(const Config& config, ReplicaInfo replica, uint64_t epoch);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a sequence. INVALID_ARGUMENT: malformed, or can never fit (the message has the
  // arithmetic); ALREADY_EXISTS: the id is live; RESOURCE_EXHAUSTED: the queue is full, retry
  // later.
  absl::Status Add(SequenceRequest request);

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

  // The worker is lost: all live sequences, most urgent first, each with the tokens retired so far.
  // The scheduler is empty afterwards and plans nothing more.
  std::vector<SequenceRequest> Evacuate();

  // How many leading blocks of these keys are in the replica's memory, for routing by affinity.
  uint32_t CountLocalBlocks(absl::Span<const BlockKey> keys) const;

  uint32_t running() const;
  uint32_t waiting() const;
  uint32_t steps_in_flight() const;
  const ReplicaInfo& replica() const { return replica_; }

  // Fills the counters, running, waiting and groups; plan_ns_total, state, address and info are the
  // caller's.
  void Describe(v1::WorkerStatus& status) const;
  // One entry for each tenant seen, by name.
  std::vector<v1::TenantStatus> DescribeTenants() const;

 private:
  class State;

  const Config config_;
  const ReplicaInfo replica_;
  std::unique_ptr<State> state_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_SCHEDULER_SCHEDULER_H_
