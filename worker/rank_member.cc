#include "worker/rank_member.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "sharding/shard_map_proto.h"
#include "worker/gloo_communicator.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<RankMember>> RankMember::Whole(const Config& config,
                                                              const Rank::Progress& progress) {
  auto member = std::unique_ptr<RankMember>(new RankMember(config, /*takes_assignment=*/false));
  TROUPE_ASSIGN_OR_RETURN(member->rank_, Rank::Open(config.rank, progress));
  TROUPE_RETURN_IF_ERROR(member->ResolveThreshold());
  return member;
}

std::unique_ptr<RankMember> RankMember::Assigned(const Config& config) {
  return std::unique_ptr<RankMember>(new RankMember(config, /*takes_assignment=*/true));
}

absl::Status RankMember::ResolveThreshold() {
  TROUPE_ASSIGN_OR_RETURN(
      rank_->gate_threshold,
      ResolveGateThreshold(config_.gate_threshold, std::getenv("DYNAMIC_ATTENTION_THRESHOLD"),
                           rank_->gate_threshold));
  return absl::OkStatus();
}

v1::WorkerInfo RankMember::Describe() const {
  v1::WorkerInfo info = rank_->Describe();
  info.set_default_gate_threshold(rank_->gate_threshold);
  return info;
}

absl::Status RankMember::Become(const v1::Assignment& assignment,
                                std::shared_ptr<SessionMeeting> meeting,
                                const Rank::Progress& progress) {
  Leave();
  TROUPE_ASSIGN_OR_RETURN(ShardMap map, FromProto(assignment.map()));
  const int index = static_cast<int>(assignment.rank());
  if (index >= map.layout.world()) {
    return absl::FailedPreconditionError(
        absl::StrCat("assignment: found rank ", index, " of ", map.layout.world(), " ranks"));
  }
  map.epoch = 0;
  if (rank_ == nullptr || map_ != map || index_ != index) {
    TROUPE_RETURN_IF_ERROR(Load(map, index, progress));
  }
  TROUPE_RETURN_IF_ERROR(meeting->status());
  meeting_ = std::move(meeting);
  const int size = map.layout.world();
  if (size == 1) {
    // Nobody to meet, but the coordinator waits for everybody's word.
    return meeting_->Exchange("").status();
  }
  if (progress) progress("peers", 0, 0);
  TROUPE_ASSIGN_OR_RETURN(world_, MakeGlooCommunicator({.rank = index,
                                                        .size = size,
                                                        .host = config_.host,
                                                        .connect_timeout = config_.connect_timeout,
                                                        .timeout = config_.collective_timeout},
                                                       *meeting_, rank_->ops.get()));
  meeting_->Guard(world_.get());
  return world_->status();
}

absl::Status RankMember::Load(const ShardMap& map, int rank, const Rank::Progress& progress) {
  // What was there makes room first.
  rank_.reset();
  map_.reset();
  TROUPE_ASSIGN_OR_RETURN(rank_, Rank::Open(config_.rank, progress));
  TROUPE_RETURN_IF_ERROR(ResolveThreshold());
  map_ = map;
  index_ = rank;
  return absl::OkStatus();
}

void RankMember::Leave() {
  if (meeting_ != nullptr) meeting_->Guard(nullptr);
  meeting_.reset();
  world_.reset();
}

absl::Status RankMember::links_status() const {
  return world_ == nullptr ? absl::OkStatus() : world_->status();
}

}  // namespace troupe
