#include "worker/rank_member.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "model/checkpoint.h"
#include "sharding/reshard_kv.h"
#include "sharding/reshard_plan.h"
#include "sharding/shard_map_proto.h"
#include "worker/gloo_communicator.h"
#include "worker/held_parts.h"
#include "worker/nccl_communicator.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<RankMember>> RankMember::Whole(const Config& config,
                                                              const Rank::Progress& progress) {
  auto member = std::unique_ptr<RankMember>(new RankMember(config, /*takes_assignment=*/false));
  TROUPE_ASSIGN_OR_RETURN(member->rank_, Rank::Open(config.rank, /*part=*/std::nullopt, progress));
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
  info.set_kept_epoch(kept_epoch_);
  info.set_kept_home(static_cast<uint32_t>(kept_home_));
  // A stage may have nothing to store of a block, which the cache service has no value for.
  if (!part_.has_value() || part_->map.layout.pp == 1) {
    info.set_cache_address(config_.cache_address);
  }
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
  const uint64_t epoch = std::exchange(map.epoch, 0);
  const bool here = rank_ != nullptr && part_->map == map && part_->rank == index;
  const Rank::Part part{.map = std::move(map), .rank = index};
  TROUPE_ASSIGN_OR_RETURN(const bool taken, TakePrepared(epoch, part));
  if (!taken && !here) TROUPE_RETURN_IF_ERROR(Load(part, progress));
  {
    const std::lock_guard lock(mutex_);
    epoch_ = epoch;
    serving_ = part_;
    checkpoint_ = rank_->checkpoint;
    if (served_.files == nullptr) served_ = {rank_->files, rank_->checkpoint};
    loaded_ = rank_->model;
  }
  TROUPE_RETURN_IF_ERROR(meeting->status());
  meeting_ = std::move(meeting);
  return Connect(progress);
}

absl::Status RankMember::Load(const Rank::Part& part, const Rank::Progress& progress) {
  // What was there makes room first.
  Drop();
  TROUPE_ASSIGN_OR_RETURN(rank_, Rank::Open(config_.rank, part, progress, {.checkpoint = Known()}));
  part_ = part;
  return ResolveThreshold();
}

absl::StatusOr<RankMember::Held> RankMember::Prepare(const v1::ShardMap& proto, int rank,
                                                     const Rank::Progress& progress,
                                                     PeerPlan peers) {
  if (!takes_assignment_) {
    return absl::FailedPreconditionError("the worker has loaded the whole model for life");
  }
  TROUPE_ASSIGN_OR_RETURN(ShardMap map, FromProto(proto));
  if (rank < 0 || rank >= map.layout.world()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank: found ", rank, ", wanted less than ", map.layout.world()));
  }
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig model, ReadModelConfig(config_.rank.model));
  TROUPE_RETURN_IF_ERROR(ValidateShardMap(model.description, map));
  Prepared prepared;
  prepared.epoch = std::exchange(map.epoch, 0);
  prepared.part = {.map = std::move(map), .rank = rank};
  RankGiven given{.checkpoint = Known(), .digests = true, .peers = std::move(peers)};
  {
    const std::lock_guard lock(mutex_);
    prepared_.reset();  // makes room
    if (serving_.has_value() &&
        KeepSameState(model.description, serving_->map, serving_->rank, prepared.part.map, rank)) {
      prepared.pages_of = serving_;
    }
    given.pages = prepared.pages_of.has_value();
    given.keep = loaded_;
  }
  TROUPE_ASSIGN_OR_RETURN(prepared.rank,
                          Rank::Open(config_.rank, prepared.part, progress, std::move(given)));
  const std::vector<WeightPart> parts = HeldParts(*prepared.rank->model);
  Held held{prepared.rank->identity, PartsDigest(model.description, parts),
            prepared.rank->WeightDigests(), prepared.rank->read};
  const std::lock_guard lock(mutex_);
  prepared_ = std::move(prepared);
  return held;
}

absl::StatusOr<bool> RankMember::TakePrepared(uint64_t epoch, const Rank::Part& part) {
  std::optional<Prepared> taken;
  {
    const std::lock_guard lock(mutex_);
    const bool fits = prepared_.has_value() && prepared_->epoch == epoch &&
                      prepared_->part.map == part.map && prepared_->part.rank == part.rank;
    if (!fits) return false;
    taken = std::exchange(prepared_, std::nullopt);
  }
  Rank& next = *taken->rank;
  // The rank whose pages it counted on may be gone, or another.
  const bool keeps = next.pages == nullptr && rank_ != nullptr && taken->pages_of == *part_;
  if (keeps) {
    const absl::Status took = next.TakePages(*rank_);
    if (!took.ok()) {
      Drop();
      return took;
    }
  } else {
    kept_epoch_ = 0;
    if (next.pages == nullptr) TROUPE_RETURN_IF_ERROR(next.MakePages());
  }
  rank_ = std::move(taken->rank);
  part_ = part;
  TROUPE_RETURN_IF_ERROR(ResolveThreshold());
  return true;
}

void RankMember::OnStateWritten(uint64_t session_epoch) {
  kept_epoch_ = session_epoch;
  kept_home_ = part_.has_value() ? part_->map.Place(part_->rank).dp_index : 0;
}

std::optional<ModelIdentity> RankMember::Known() const {
  const std::lock_guard lock(mutex_);
  if (served_.files != nullptr) return served_.identity;
  return config_.rank.dummy_weights ? checkpoint_ : std::nullopt;
}

ServedCheckpoint RankMember::Served() const {
  const std::lock_guard lock(mutex_);
  return served_;
}

void RankMember::Drop() {
  rank_.reset();
  part_.reset();
  kept_epoch_ = 0;
  const std::lock_guard lock(mutex_);
  serving_.reset();
  loaded_.reset();
}

void RankMember::RetirePrepared(uint64_t keep_epoch) {
  std::optional<Prepared> dropped;  // without the lock
  const std::lock_guard lock(mutex_);
  if (prepared_.has_value() && prepared_->epoch != keep_epoch) dropped.swap(prepared_);
}

bool RankMember::Retire(uint64_t keep_epoch) {
  RetirePrepared(keep_epoch);
  {
    const std::lock_guard lock(mutex_);
    if (rank_ == nullptr || !takes_assignment_ || epoch_ == keep_epoch) return false;
    epoch_ = 0;
  }
  Leave();
  Drop();
  return true;
}

std::vector<uint64_t> RankMember::MapEpochs() const {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> epochs;
  if (epoch_ != 0) epochs.push_back(epoch_);
  if (prepared_.has_value()) epochs.push_back(prepared_->epoch);
  return epochs;
}

absl::Status RankMember::Connect(const Rank::Progress& progress) {
  const int size = part_->map.layout.world();
  if (size == 1) {
    // Nobody to meet, but every rank hands in.
    TROUPE_RETURN_IF_ERROR(meeting_->Exchange("").status());
    return rank_->Connect(/*links=*/nullptr);
  }
  if (progress) progress("peers", 0, 0);
  TROUPE_ASSIGN_OR_RETURN(auto world, MakeWorld(size));
  // It stays where it is when the links take it.
  meeting_->Guard(world.get());
  auto links = MakeRankLinks(std::move(world), part_->map);
  if (!links.ok()) {
    meeting_->Guard(nullptr);
    return links.status();
  }
  links_ = *std::move(links);
  return rank_->Connect(&*links_);
}

absl::StatusOr<std::unique_ptr<Communicator>> RankMember::MakeWorld(int size) {
  Ops* ops = rank_->ops.get();
  if (ops->Queue() != nullptr) {
    return MakeNcclCommunicator({.rank = part_->rank,
                                 .size = size,
                                 .connect_timeout = config_.connect_timeout,
                                 .timeout = config_.collective_timeout},
                                *meeting_, ops);
  }
  return MakeGlooCommunicator({.rank = part_->rank,
                               .size = size,
                               .host = config_.host,
                               .connect_timeout = config_.connect_timeout,
                               .timeout = config_.collective_timeout},
                              *meeting_, ops);
}

void RankMember::Leave() {
  if (!takes_assignment_) return;
  if (meeting_ != nullptr) meeting_->Guard(nullptr);
  meeting_.reset();
  if (rank_ != nullptr) rank_->Disconnect();
  links_.reset();
}

absl::Status RankMember::links_status() const {
  return links_.has_value() ? links_->status() : absl::OkStatus();
}

}  // namespace troupe
