// One replica as the fleet puts it together: which workers are its ranks, and what each holds.
// Plain values; any thread.
#ifndef TROUPE_COORDINATOR_REPLICA_SPEC_H_
#define TROUPE_COORDINATOR_REPLICA_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "troupe/v1/shard.pb.h"

namespace troupe {

struct ReplicaMember {
  std::string worker;
  std::string address;
  std::string node;
  std::string device;
};

struct ReplicaSpec {
  std::string name;
  uint64_t epoch = 0;                  // of the session
  std::vector<ReplicaMember> members;  // by rank
  // Empty: the only member has loaded the whole model by itself.
  std::optional<v1::ShardMap> map;

  v1::Layout layout() const {
    if (map.has_value()) return map->layout();
    v1::Layout whole;
    whole.set_tp(1);
    whole.set_dp(1);
    whole.set_pp(1);
    return whole;
  }
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_REPLICA_SPEC_H_
