// Shard maps in messages. Pure functions; any thread.
#ifndef TROUPE_SHARDING_SHARD_MAP_PROTO_H_
#define TROUPE_SHARDING_SHARD_MAP_PROTO_H_

#include "absl/status/statusor.h"
#include "sharding/shard_map.h"
#include "sharding/weight_ledger.h"
#include "troupe/v1/shard.pb.h"

namespace troupe {

v1::ShardMap ToProto(const ShardMap& map);

// INVALID_ARGUMENT: sizes that no map has. Whether it fits a model is ValidateShardMap's to say.
absl::StatusOr<ShardMap> FromProto(const v1::ShardMap& map);

v1::WeightPiece ToProto(const WeightPiece& piece);
// INVALID_ARGUMENT: of a role that no weights have.
absl::StatusOr<WeightPiece> FromProto(const v1::WeightPiece& piece);

}  // namespace troupe

#endif  // TROUPE_SHARDING_SHARD_MAP_PROTO_H_
