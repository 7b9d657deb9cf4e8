// A replica of many ranks in one process, driven without a scheduler, for tests: a RunnerHarness
// and a thread a rank. Sequence `slot` lives in home slot mod dp.
//
// Thread model: one thread; the ranks' threads live for a call. Ownership: owns all.
#ifndef TROUPE_WORKER_TESTING_REPLICA_HARNESS_H_
#define TROUPE_WORKER_TESTING_REPLICA_HARNESS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "sharding/shard_map.h"
#include "worker/rank_links.h"
#include "worker/testing/runner_harness.h"

namespace troupe {

class ReplicaHarness {
 public:
  enum class Transport { kMemory, kGloo };

  struct Options {
    RunnerHarness::Options runner;  // of each rank; links are the replica's own
    Layout layout;
    Transport transport = Transport::kMemory;
  };
  using MakeRankOps = std::function<absl::StatusOr<std::unique_ptr<Ops>>()>;

  // Loads each rank's part. Errors are those of the layout, and of any rank.
  static absl::StatusOr<std::unique_ptr<ReplicaHarness>> Create(const Checkpoint& checkpoint,
                                                                const MakeRankOps& make_ops,
                                                                const Options& options);
  ~ReplicaHarness();

  const ShardMap& map() const { return map_; }
  RunnerHarness& rank(int rank) { return *ranks_[rank].harness; }

  // One step on all ranks; the rows' logits in their order. All ranks of the last stage must agree
  // on them bit for bit.
  RunnerHarness::Logits Step(const std::vector<RunnerHarness::Row>& rows);
  // What the rank counted in the last step.
  struct Counts {
    std::vector<int32_t> heads_closed;
    std::vector<int32_t> expert_tokens;

    bool operator==(const Counts&) const = default;
  };
  const Counts& counts(int rank) const { return ranks_[rank].counts; }
  // After Step with the same rows: the MTP module's logits, with the token that follows each. The
  // options must ask for it.
  RunnerHarness::Logits StepMtp(const std::vector<RunnerHarness::Row>& rows,
                                const std::vector<std::vector<uint32_t>>& next_tokens);
  void Finish(uint32_t slot);

 private:
  struct Rank {
    std::unique_ptr<Ops> ops;  // until the harness has them
    RankLinks links;
    std::unique_ptr<RunnerHarness> harness;
    Counts counts;
  };

  absl::Status OpenRank(const Checkpoint& checkpoint, const Options& options,
                        std::unique_ptr<Communicator> world, int rank);
  // Each home's logits from its ranks of the last stage, which must agree, in the order of rows.
  RunnerHarness::Logits InOrder(const std::vector<RunnerHarness::Row>& rows,
                                const std::vector<RunnerHarness::Logits>& of_ranks) const;
  void OnEveryRank(const std::function<void(int rank)>& run);

  ShardMap map_;
  std::vector<Rank> ranks_;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_REPLICA_HARNESS_H_
