// A worker for tests: no model, but every rule of the protocol is checked, and pages carry tags
// that say what a real page would hold, so that a page given to the wrong sequence is found at
// once.
//
// The tag of a token is a hash of its whole prefix, the tenant namespace and the gate; a row is
// computed only if every token it sees has the right tag in every group. The next token is a
// function of the prefix and the seed, so the right output is known without any worker
// (ExpectedToken). Cache service and transfers are part of it: a load clobbers its page as soon as
// its plan arrives, before the steps ahead of it have run, which is the worst that a real worker
// does.
//
// Violations are gtest failures of the current test. Not thread-safe.
#ifndef TROUPE_COORDINATOR_SCHEDULER_FAKE_WORKER_H_
#define TROUPE_COORDINATOR_SCHEDULER_FAKE_WORKER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/scheduler/page_pool.h"
#include "coordinator/scheduler/replica_info.h"
#include "troupe/v1/worker.pb.h"

namespace troupe::testing {

using Tag = uint64_t;

// The tag before a sequence's first token.
Tag RootTag(const std::string& tenant_namespace, const v1::GateSetting& gate);
Tag NextTag(Tag prefix, uint32_t token);
// What the model samples after this prefix.
uint32_t ExpectedToken(Tag prefix, uint64_t seed, uint32_t vocabulary);

// What the cache service holds: (block key, group) -> the page's tags. Outlives workers.
using FakeCache = std::map<std::pair<std::string, uint32_t>, std::vector<Tag>>;

class FakeWorker {
 public:
  struct Config {
    uint32_t vocabulary = 100;
    uint32_t max_transfers = 32;
    // Of each load and store, in percent.
    uint32_t load_miss = 0;
    uint32_t transfer_failure = 0;
    // Chance in percent that a transfer under way ends with a step.
    uint32_t transfer_end = 100;
    // forward_us of a step, from its tokens.
    std::function<uint64_t(uint32_t tokens)> forward_us = [](uint32_t tokens) {
      return 100 + 10 * tokens;
    };
  };

  FakeWorker(const Config& config, ReplicaInfo replica, uint64_t epoch, FakeCache& cache,
             uint32_t seed);

  // The tenant namespace is not in the protocol's NewSequence, but it is part of what a page holds:
  // tests put it in Sampling.seed's upper half. See EncodeSeed.
  static uint64_t EncodeSeed(uint32_t tenant_namespace, uint32_t seed) {
    return uint64_t{tenant_namespace} << 32 | seed;
  }

  // A session of another epoch: every sequence is forgotten, what lies in the pages is not.
  void Reopen(uint64_t epoch);

  // A plan arrives. REQUIRES: plans come in order.
  void Accept(const v1::StepPlan& plan);
  bool has_steps() const { return !steps_.empty(); }
  // Runs the oldest plan.
  v1::StepResult Run();

  uint32_t transfers_under_way() const { return static_cast<uint32_t>(transfers_.size()); }
  uint64_t tokens_computed() const { return tokens_computed_; }
  uint64_t pages_filled() const { return pages_filled_; }

 private:
  struct Slot {
    bool live = false;
    uint64_t instance = 0;
    Tag root = 0;
    uint64_t seed = 0;
    uint32_t next = 0;     // position of the next row
    bool started = false;  // a row has run, so `next` is known
    std::vector<uint32_t> tokens;
    std::vector<Tag> tags;                            // of the prefixes, tags[i] after i tokens
    std::vector<std::map<uint32_t, uint32_t>> table;  // group -> block -> page
  };
  struct Page {
    std::vector<Tag> tags;
    uint32_t loading = 0;
  };
  struct RunningTransfer {
    v1::BlockTransfer message;
    bool is_load = false;
    uint64_t step = 0;             // whose plan brought it
    std::vector<Tag> tags;         // of a store: the page's when it started
    PageId host_page = kNoPageId;  // of a fill
  };
  using PageName = std::pair<uint32_t, uint32_t>;  // group, page

  void CheckPage(uint32_t group, uint32_t page) const;
  void CheckNotInFlight(uint32_t group, uint32_t page, const char* what) const;
  void BeginLoads(const v1::StepPlan& plan);
  void ApplyNew(const v1::StepPlan& plan);
  void ApplyGrants(const v1::StepPlan& plan);
  void ApplyCopies(const v1::StepPlan& plan);
  void BeginStores(const v1::StepPlan& plan);
  void ApplySpills(const v1::StepPlan& plan);
  void BeginFills(const v1::StepPlan& plan);
  void RunRow(const v1::StepPlan& plan, int row, v1::StepResult& result);
  void CheckReads(const Slot& slot, uint32_t position);
  void WriteToken(Slot& slot, uint32_t slot_index, uint32_t position);
  void EndTransfers(const v1::StepPlan& plan, v1::StepResult& result);
  v1::TransferDone End(const RunningTransfer& transfer);
  std::set<PageName> PagesOfRows(const v1::StepPlan& plan, std::set<uint32_t>& renewed) const;

  const Config config_;
  const ReplicaInfo replica_;
  uint64_t epoch_;
  FakeCache& cache_;
  std::mt19937 random_;
  std::vector<Slot> slots_;
  std::vector<std::vector<Page>> pages_;                   // by group
  std::vector<std::vector<std::vector<Tag>>> host_pages_;  // likewise
  std::deque<v1::StepPlan> steps_;
  std::vector<RunningTransfer> transfers_;
  std::set<uint64_t> transfer_ids_;
  uint64_t last_step_ = 0;
  uint64_t last_instance_ = 0;
  uint64_t tokens_computed_ = 0;
  uint64_t pages_filled_ = 0;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_SCHEDULER_FAKE_WORKER_H_
