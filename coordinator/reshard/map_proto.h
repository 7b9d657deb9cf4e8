// Shard maps as messages, and back. Pure functions.
#ifndef TROUPE_COORDINATOR_RESHARD_MAP_PROTO_H_
#define TROUPE_COORDINATOR_RESHARD_MAP_PROTO_H_

#include <vector>

#include "absl/types/span.h"
#include "sharding/shard_map.h"
#include "troupe/v1/shard.pb.h"

namespace troupe {

v1::Layout ToProto(const Layout& layout);
Layout FromProto(const v1::Layout& layout);

// `members` by rank.
v1::ShardMap ToProto(const ShardMap& map, absl::Span<const v1::RankMember> members);
// Not validated: see ValidateShardMap.
ShardMap FromProto(const v1::ShardMap& map);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_MAP_PROTO_H_
