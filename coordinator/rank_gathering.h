// How the ranks of a replica become one: each loads its shard, they exchange addresses, they
// connect, they announce what they have.
//
// Thread model: none, one owner. Ownership: plain values. Times are microseconds of the owner's
// time line. Errors name the rank, its worker and its address.
#ifndef TROUPE_COORDINATOR_RANK_GATHERING_H_
#define TROUPE_COORDINATOR_RANK_GATHERING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/replica_spec.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

class RankGathering {
 public:
  struct Limits {
    int64_t silent_us = 60'000'000;   // between two signs of life of a rank that connects or loads
    int64_t meeting_us = 60'000'000;  // from the last rank's arrival until all are connected
  };

  RankGathering(ReplicaSpec spec, const Limits& limits, int64_t now_us);

  void OnLoading(int rank, v1::Loading loading, int64_t now_us);
  // What to send to all ranks, where this was the last one's.
  absl::StatusOr<std::optional<v1::Meeting>> OnContribution(int rank, std::string contribution,
                                                            int64_t now_us);
  // FAILED_PRECONDITION: a second time, or not fit for one replica with the others.
  absl::Status OnInfo(int rank, v1::WorkerInfo info, int64_t now_us);

  bool complete() const { return ready_ == ranks_.size(); }
  // REQUIRES: complete(). What a home offers: the least that one of its ranks does, pages' bytes
  // over all of them.
  v1::WorkerInfo HomeInfo(int home) const;

  // DEADLINE_EXCEEDED naming the ranks that keep the others waiting; OK while there is hope.
  absl::Status Overdue(int64_t now_us) const;

  // Also afterwards: ranks of a status, but for steps.
  void Describe(int64_t now_us, v1::WorkerStatus& status) const;
  void OnSign(int rank, int64_t now_us) { ranks_[rank].heard_us = now_us; }
  // "rank 2 (worker w2 at host:7101)".
  std::string Name(int rank) const;

 private:
  struct Rank {
    v1::RankStatus::State state = v1::RankStatus::STATE_CONNECTING;
    v1::Loading loading;
    std::optional<std::string> contribution;
    v1::WorkerInfo info;
    int64_t heard_us = 0;
  };

  absl::Status CheckAlike(int rank, const v1::WorkerInfo& info) const;

  const ReplicaSpec spec_;
  const Limits limits_;
  std::vector<Rank> ranks_;
  size_t ready_ = 0;
  std::optional<int64_t> met_us_;  // the last meeting
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RANK_GATHERING_H_
