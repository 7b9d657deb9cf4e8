#include "coordinator/testing/sim_rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "sharding/reshard_kv.h"
#include "sharding/shard_map_proto.h"

namespace troupe::testing {
namespace {

std::set<WeightPart> PartsIn(const ModelDescription& model, const v1::ShardMap& map, int rank) {
  const std::vector<WeightPart> parts =
      PartsOf(ShardOf(model, FromProto(map).value(), rank), false);
  return {parts.begin(), parts.end()};
}

// What its weights' digests would be: any function of where the stretch begins and ends that adds
// up over stretches.
uint64_t DigestUpTo(const WeightPart& part, int64_t end, int64_t of) {
  if (end == 0) return 0;
  const WeightExtent reduced = ExtentOf(0, end, of);
  return absl::HashOf(part.role, part.layer, part.expert, reduced.size, reduced.of);
}

WeightPiece PieceOf(const WeightPart& part) {
  const Slice& slice = part.slice;
  return {.role = part.role,
          .layer = part.layer,
          .expert = part.expert,
          .extent = ExtentOf(slice.index, 1, slice.count),
          .digest = DigestUpTo(part, slice.index + 1, slice.count) -
                    DigestUpTo(part, slice.index, slice.count)};
}

}  // namespace

// Loads what a rank lacks, in a few gulps, so that it can be interrupted between them.
class SimRank::Preparation : public std::enable_shared_from_this<Preparation> {
 public:
  Preparation(SimRank* rank, const v1::PrepareShardRequest& request, ActorRef<ReshardMessage> owner)
      : rank_(rank), request_(request), owner_(std::move(owner)) {}

  void Start() {
    const uint64_t serving = request_.has_serving() ? request_.serving().epoch() : 0;
    const auto here = rank_->held_.find(serving);
    for (const WeightPart& part : PartsIn(rank_->ranks_->config().model, request_.map(),
                                          static_cast<int>(request_.rank()))) {
      if (here != rank_->held_.end() && here->second.contains(part)) {
        parts_.insert(part);
      } else {
        lacks_.push_back(part);
      }
    }
    gulp_ = std::max<size_t>(1, (lacks_.size() + 2) / 3);
    rank_->ranks_->Event(absl::StrCat(rank_->name_, " starts to prepare"));
    Next();
  }

  void End(const absl::Status& status) {
    if (std::exchange(ended_, true)) return;
    (void)owner_.TellReply(PrepareEnded{request_.map().epoch(), rank_->name_, status});
  }
  void Forget() { ended_ = true; }

 private:
  void Next() {
    if (ended_) return;
    SimRanks& ranks = *rank_->ranks_;
    double us = 0;
    for (size_t i = 0; i < gulp_ && !lacks_.empty(); ++i) {
      const WeightPart part = lacks_.back();
      lacks_.pop_back();
      const auto bytes =
          static_cast<double>(BytesOf(NumbersOf(ranks.config().model, part), WeightBits()));
      const bool peer = FromPeer(part);
      if (!peer && rank_->lacks_weights_) {
        return End(
            absl::UnavailableError(absl::StrCat(NameOf(part), ": nobody has these weights")));
      }
      us += bytes / (peer ? ranks.config().peer_bytes_per_us : ranks.config().disk_bytes_per_us);
      (peer ? peer_bytes_ : disk_bytes_) += static_cast<uint64_t>(bytes);
      parts_.insert(part);
    }
    const absl::Duration busy = absl::Microseconds(us) + ranks.Delay();
    ranks.executor().PostAfter(busy, [weak = weak_from_this()] {
      const std::shared_ptr<Preparation> self = weak.lock();
      if (self == nullptr || self->ended_) return;
      self->rank_->ranks_->Event(absl::StrCat(self->rank_->name_, " has loaded some"));
      if (self->ended_) return;
      const auto lacks = static_cast<double>(self->lacks_.size());
      const double done = 1 - lacks / (lacks + static_cast<double>(self->parts_.size()));
      (void)self->owner_.TellReply(
          PrepareProgressed{self->request_.map().epoch(), self->rank_->name_, done});
      if (self->lacks_.empty()) {
        self->Done();
      } else {
        self->Next();
      }
    });
  }

  // A peer that is gone by now is no reason to fail: there is the disk.
  bool FromPeer(const WeightPart& part) const {
    for (const v1::RankMember& member : request_.serving().members()) {
      if (member.address().empty()) continue;
      const SimRank& peer = rank_->ranks_->at(member.worker());
      if (!peer.on() || peer.lacks_weights_ || peer.held_.empty()) continue;
      // One that has the checkpoint can cut anything.
      if (rank_->lacks_weights_ || peer.HasPart(request_.serving().epoch(), part)) return true;
    }
    return false;
  }

  void Done() {
    if (std::exchange(rank_->lose_a_part_, false)) parts_.erase(parts_.begin());
    rank_->held_[request_.map().epoch()] = parts_;
    rank_->ranks_->Event(absl::StrCat(rank_->name_, " has prepared"));
    if (std::exchange(ended_, true)) return;
    const std::vector<WeightPart> parts(parts_.begin(), parts_.end());
    std::vector<WeightPiece> weights;
    for (const WeightPart& part : parts) weights.push_back(PieceOf(part));
    if (std::exchange(rank_->damage_a_part_, false)) ++weights.back().digest;
    (void)owner_.TellReply(PrepareEnded{request_.map().epoch(), rank_->name_,
                                        PartsDigest(rank_->ranks_->config().model, parts),
                                        rank_->identity_.value_or(rank_->ranks_->config().identity),
                                        std::move(weights), peer_bytes_, disk_bytes_});
  }

  SimRank* const rank_;
  const v1::PrepareShardRequest request_;
  const ActorRef<ReshardMessage> owner_;
  std::set<WeightPart> parts_;
  std::vector<WeightPart> lacks_;
  size_t gulp_ = 1;
  uint64_t peer_bytes_ = 0;
  uint64_t disk_bytes_ = 0;
  bool ended_ = false;
};

SimRank::SimRank(SimRanks* ranks, std::string name) : ranks_(ranks), name_(std::move(name)) {}
SimRank::~SimRank() = default;

void SimRank::Start() {
  on_ = true;
  Announce(++incarnation_);
}

void SimRank::Kill() {
  pages_.reset();
  if (!std::exchange(on_, false)) return;
  ++incarnation_;
  held_.clear();
  if (const auto preparation = preparation_.lock()) {
    preparation->End(absl::UnavailableError("connection reset"));
  }
  for (const auto& weak : std::exchange(on_kill_, {})) {
    if (const auto told = weak.lock()) (*told)();
  }
}

std::set<uint64_t> SimRank::epochs() const {
  std::set<uint64_t> epochs;
  for (const auto& [epoch, parts] : held_) epochs.insert(epoch);
  return epochs;
}

void SimRank::Announce(uint64_t incarnation) {
  if (incarnation != incarnation_) return;
  v1::RegisterWorkerRequest request;
  request.set_worker(name_);
  request.set_address(absl::StrCat("sim:", name_));
  request.set_incarnation(incarnation);
  request.set_takes_assignment(true);
  for (const uint64_t epoch : epochs()) request.add_map_epochs(epoch);
  request.set_lacks_weights(lacks_weights_);
  request.set_serves_weights(!lacks_weights_ && !held_.empty());
  (void)ranks_->fleet().Tell(RegisterWorker{std::move(request), [](const auto& /*reply*/) {}});
  ranks_->executor().PostAfter(absl::Microseconds(ranks_->config().heartbeat_us),
                               [this, incarnation] { Announce(incarnation); });
}

namespace {

// Ends what it holds when the coordinator lets go of it.
class SimCall final : public RankControl::Call {
 public:
  explicit SimCall(std::function<void()> end) : end_(std::move(end)) {}
  ~SimCall() override { end_(); }

 private:
  const std::function<void()> end_;
};

}  // namespace

std::unique_ptr<RankControl::Call> SimRank::Prepare(const v1::PrepareShardRequest& request,
                                                    ActorRef<ReshardMessage> owner) {
  auto preparation = std::make_shared<Preparation>(this, request, std::move(owner));
  preparation_ = preparation;
  ranks_->executor().PostAfter(ranks_->Delay(), [this, preparation] {
    if (on_) {
      preparation->Start();
    } else {
      preparation->End(absl::UnavailableError("connection refused"));
    }
  });
  return std::make_unique<SimCall>([preparation] { preparation->Forget(); });
}

void SimRank::Retire(uint64_t keep_epoch, uint64_t epoch, ActorRef<ReshardMessage> owner) {
  ranks_->executor().PostAfter(
      ranks_->Delay(), [this, keep_epoch, epoch, owner = std::move(owner)] {
        absl::Status status;
        if (on_) {
          ranks_->Event(absl::StrCat(name_, " retires"));
          std::erase_if(held_, [&](const auto& held) { return held.first != keep_epoch; });
        } else {
          status = absl::UnavailableError("connection refused");
        }
        (void)owner.TellReply(RetireEnded{epoch, name_, keep_epoch, status});
      });
}

SimPages& SimRank::TakePages(const v1::ShardMap& proto, int rank, uint64_t session_epoch) {
  const ShardMap map = FromProto(proto).value();
  const SimRanks::Config& config = ranks_->config();
  if (pages_.has_value() && KeepSameState(config.model, pages_->map, pages_->rank, map, rank)) {
    pages_->worker->Reopen(session_epoch);
  } else {
    pages_.emplace();
    pages_->worker = std::make_shared<FakeWorker>(
        config.worker, ReplicaInfo::From(config.info).value(), session_epoch, cache_, /*seed=*/1);
  }
  pages_->map = map;
  pages_->rank = rank;
  return *pages_;
}

void SimRank::OnWritten(uint64_t session_epoch) {
  pages_->written_epoch = session_epoch;
  pages_->written_home = pages_->map.Place(pages_->rank).dp_index;
}

bool SimRank::Holds(const v1::ShardMap& map, int rank) const {
  const auto found = held_.find(map.epoch());
  return on_ && found != held_.end() && found->second == PartsIn(ranks_->config().model, map, rank);
}

bool SimRank::HasPart(uint64_t epoch, const WeightPart& part) const {
  const auto found = held_.find(epoch);
  return found != held_.end() && found->second.contains(part);
}

SimRanks::SimRanks(Config config, SimExecutor* executor,
                   std::function<void(const std::string&)> event)
    : config_(std::move(config)), executor_(executor), event_(std::move(event)) {}

SimRank& SimRanks::Add(const std::string& name) {
  return *(ranks_[name] = std::make_unique<SimRank>(this, name));
}

absl::Duration SimRanks::Delay() {
  return absl::Microseconds(executor_->random().Below(config_.max_delay_us + 1));
}

void SimRanks::OnStep(uint64_t map_epoch) {
  EXPECT_GE(map_epoch, last_step_epoch_) << "a step of an older map after one of a newer";
  if (map_epoch != last_step_epoch_) Event(absl::StrCat("first step of epoch ", map_epoch));
  last_step_epoch_ = map_epoch;
  const int64_t now_us = executor_->clock().MonotonicNs() / 1000;
  if (last_step_us_ > 0) longest_stall_us_ = std::max(longest_stall_us_, now_us - last_step_us_);
  last_step_us_ = now_us;
}

}  // namespace troupe::testing
