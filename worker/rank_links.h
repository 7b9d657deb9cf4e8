// A rank's ways to the other ranks of its replica, by what they share with it.
//
// Thread model: as Communicator's. Ownership: owns the communicators. Invariants: a group of one
// has a communicator too, whose operations change nothing, so that the forward pass need not ask.
#ifndef TROUPE_WORKER_RANK_LINKS_H_
#define TROUPE_WORKER_RANK_LINKS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/shard_map.h"
#include "worker/communicator.h"

namespace troupe {

struct RankLinks {
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator>
      tp;  // the same stage and home: they sum what they computed parts of
  std::unique_ptr<Communicator>
      dp;  // the same stage and tp_index: they exchange tokens for experts
  std::unique_ptr<Communicator> pp;  // the same home and tp_index, by stage

  // OK, or why one of them failed.
  absl::Status status() const;
};

// Every rank of `world` calls it with the same map; world->size() must be the map's.
absl::StatusOr<RankLinks> MakeRankLinks(std::unique_ptr<Communicator> world, const ShardMap& map);

// Of a rank that is the whole replica.
RankLinks LoneLinks();

}  // namespace troupe

#endif  // TROUPE_WORKER_RANK_LINKS_H_
