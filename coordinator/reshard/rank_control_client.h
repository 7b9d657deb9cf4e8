// Ranks' shards over gRPC: Worker.PrepareShard and Worker.RetireShard.
#ifndef TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_CLIENT_H_
#define TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_CLIENT_H_

#include <memory>

#include "coordinator/reshard/rank_control.h"

namespace troupe {

// Dials ranks by their addresses. A call that is let go of is cancelled and ends soon after.
std::unique_ptr<RankControl> GrpcRankControl();

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_CLIENT_H_
