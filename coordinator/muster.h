// The workers that have announced themselves, and which of them make a replica.
//
// Thread model: none, one owner. Ownership: plain values. Times are microseconds of the owner's
// time line.
#ifndef TROUPE_COORDINATOR_MUSTER_H_
#define TROUPE_COORDINATOR_MUSTER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/replica_spec.h"
#include "troupe/v1/admin.pb.h"

namespace troupe {

// What the rank with the least memory has, where those of one machine share it evenly: of what they
// announced when they started. 0: one of them does not know.
int64_t LeastMemoryBytes(const std::vector<v1::RegisterWorkerRequest>& ranks);

struct MusteredWorker {
  v1::RegisterWorkerRequest request;  // the last one
  int64_t heard_us = 0;
  std::string replica;  // whose rank it is; empty: none's
  uint64_t epoch = 0;   // of the last session
  // Its session ended: it must announce itself again before it gets another.
  bool lost = false;
  std::optional<uint64_t> refused_incarnation;  // serves another model: gets no session

  bool idle() const {
    return replica.empty() && !lost && refused_incarnation != request.incarnation();
  }
};

class Muster {
 public:
  // `ranks`: of each replica.
  explicit Muster(uint32_t ranks) : ranks_(ranks) {}

  // INVALID_ARGUMENT, ALREADY_EXISTS and FAILED_PRECONDITION as Admin.RegisterWorker answers them.
  absl::Status Check(const v1::RegisterWorkerRequest& request) const;

  enum class Heard { kAgain, kRestarted };
  // REQUIRES: Check is OK. kRestarted: it is a rank, but of a process that is gone.
  Heard Take(const v1::RegisterWorkerRequest& request, int64_t now_us);

  // Members of the next replica, neighbours first; empty: too few are idle. Workers of one kind of
  // device, of as few machines as can be.
  std::vector<ReplicaMember> NextReplica() const;

  // The session of all its members is over, by `culprit`'s fault; empty: nobody knows.
  void Release(const std::string& replica, const std::string& culprit);

  // Forgets those that are no rank and were silent since before `since_us`.
  void Forget(int64_t since_us);

  // "2 of 4 ranks are here (w0, w1); start 2 more workers": while some wait; else empty.
  std::string Wanting() const;

  // Adds those that are no rank; `problem` is why there was no replica, where that is known.
  void Describe(const std::string& problem, v1::ClusterStatus& status) const;

  std::map<std::string, MusteredWorker>& workers() { return workers_; }
  const std::map<std::string, MusteredWorker>& workers() const { return workers_; }
  uint32_t ranks() const { return ranks_; }

 private:
  const uint32_t ranks_;
  std::map<std::string, MusteredWorker> workers_;  // by name
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_MUSTER_H_
