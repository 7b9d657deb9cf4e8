// The workers that take assignments, as they announced themselves: where they are, whether they are
// there still, and which maps they hold.
//
// Thread model: none, one owner. Ownership: values. Times are microseconds of the owner's time
// line.
#ifndef TROUPE_COORDINATOR_RESHARD_RANK_BOOK_H_
#define TROUPE_COORDINATOR_RESHARD_RANK_BOOK_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/replica_spec.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/shard.pb.h"

namespace troupe {

class RankBook {
 public:
  // Silence for longer than `timeout_us` counts as death.
  explicit RankBook(int64_t timeout_us) : timeout_us_(timeout_us) {}

  // True: it is another process than the one known under this name, which held nothing of this.
  bool OnSeen(const v1::RegisterWorkerRequest& request, int64_t now_us);
  // Its session broke: gone until it announces itself again.
  void OnLost(const std::string& worker);
  void OnPrepared(const std::string& worker, uint64_t epoch) {
    ranks_[worker].prepared.insert(epoch);
  }
  // It let go of all maps but one.
  void OnRetired(const std::string& worker, uint64_t keep_epoch);

  bool Live(const std::string& worker, int64_t now_us) const;
  bool Holds(const std::string& worker, uint64_t epoch) const;
  // It holds maps besides `keep_epoch`.
  bool HoldsOthers(const std::string& worker, uint64_t keep_epoch) const;
  // With an empty address where it is not known.
  v1::RankMember Member(const std::string& worker) const;
  // With its machine, as it announced it; empty likewise.
  ReplicaMember Machine(const std::string& worker) const;
  // It has no weights of its own, and peers can read them from it, as it said last.
  bool LacksWeights(const std::string& worker) const;
  bool ServesWeights(const std::string& worker) const;
  // Live ranks that `members` lacks, by name.
  std::vector<std::string> Spares(const std::vector<std::string>& members, int64_t now_us) const;

 private:
  struct Rank {
    std::string address;
    std::string node;
    std::string device;
    uint64_t incarnation = 0;
    int64_t heard_us = 0;
    bool lost = false;
    bool lacks_weights = false;
    bool serves_weights = false;
    std::set<uint64_t> announced;  // maps that it holds, as it said last
    std::set<uint64_t> prepared;   // since then, or before: an announcement may be late
  };

  const int64_t timeout_us_;
  std::map<std::string, Rank> ranks_;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_RANK_BOOK_H_
