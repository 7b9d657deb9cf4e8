// A worker as a rank: the whole model, loaded beforehand, or the rank that a session assigns.
//
// What was loaded for an assignment stays when the session ends: a session that assigns the same
// rank of the same map again finds it there and only connects. What the next assignment will need
// may be loaded beside it beforehand (Prepare), while the rank serves. Where the next rank is of
// the same layers and heads it takes the pages over, with the state that lies in them.
//
// Thread model: made by any thread, then used by one at a time, but for Prepare and MapEpochs,
// which may run on another. Ownership: owns rank and links. Errors are those of Rank::Open and of
// the communicator, and FAILED_PRECONDITION for assignments that do not fit what the worker is.
#ifndef TROUPE_WORKER_RANK_MEMBER_H_
#define TROUPE_WORKER_RANK_MEMBER_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/checkpoint.h"
#include "sharding/shard_map.h"
#include "troupe/v1/worker.pb.h"
#include "worker/communicator.h"
#include "worker/rank.h"
#include "worker/rank_links.h"
#include "worker/session_meeting.h"
#include "worker/weight_service.h"

namespace troupe {

class RankMember {
 public:
  struct Config {
    Rank::Config rank;
    std::optional<float> gate_threshold;  // as ResolveGateThreshold takes it
    std::string cache_address;            // announced; empty: none
    std::string host = "127.0.0.1";       // of this machine, where other ranks reach it
    absl::Duration connect_timeout = absl::Seconds(30);
    absl::Duration collective_timeout = absl::Seconds(60);
  };

  // Opens the whole model now, or waits for an assignment.
  static absl::StatusOr<std::unique_ptr<RankMember>> Whole(const Config& config,
                                                           const Rank::Progress& progress);
  static std::unique_ptr<RankMember> Assigned(const Config& config);

  bool takes_assignment() const { return takes_assignment_; }
  // Null before the first assignment was taken.
  Rank* rank() const { return rank_.get(); }
  // What the rank announces, but for its name. REQUIRES: rank().
  v1::WorkerInfo Describe() const;

  // Becomes the rank: loads, unless it is there, and connects to the others through `meeting`,
  // which guards the communicator until Leave.
  absl::Status Become(const v1::Assignment& assignment, std::shared_ptr<SessionMeeting> meeting,
                      const Rank::Progress& progress);
  // What was prepared: of which model (Rank::identity), PartsDigest of what lies in memory, digests
  // of its weights, and how many bytes were read for it.
  struct Held {
    std::string identity;
    std::string parts_digest;
    std::vector<WeightPiece> weights;
    WeightBytes read;
  };
  // Loads what `map` gives to its rank `rank`, for the assignment that has the map's epoch, but for
  // parts that the rank has already, which both share. What was prepared before goes. One call at
  // a time.
  absl::StatusOr<Held> Prepare(const v1::ShardMap& map, int rank, const Rank::Progress& progress,
                               PeerPlan peers = {});
  // The files that the rank which serves was loaded from, for peers; any thread.
  ServedCheckpoint Served() const;
  // A session of this epoch writes state from now on.
  void OnStateWritten(uint64_t session_epoch);
  // Drops what was prepared for other maps than that of `keep_epoch`.
  void RetirePrepared(uint64_t keep_epoch);
  // And the rank, if it is of another. True: it is gone.
  bool Retire(uint64_t keep_epoch);
  // Of the maps that weights are here for.
  std::vector<uint64_t> MapEpochs() const;
  // The session is over: the others see this rank leave.
  void Leave();
  // OK, or why this rank has lost the others.
  absl::Status links_status() const;

 private:
  RankMember(const Config& config, bool takes_assignment)
      : config_(config), takes_assignment_(takes_assignment) {}

  struct Prepared {
    uint64_t epoch = 0;
    Rank::Part part;
    std::optional<Rank::Part> pages_of;  // whose pages it is to take over; empty: has its own
    std::unique_ptr<Rank> rank;
  };

  absl::Status Load(const Rank::Part& part, const Rank::Progress& progress);
  // Takes what was prepared for this part, if anything was. False: nothing was.
  absl::StatusOr<bool> TakePrepared(uint64_t epoch, const Rank::Part& part);
  // What the folder's checkpoint is, once that was found out.
  std::optional<ModelIdentity> Known() const;
  void Drop();
  absl::Status Connect(const Rank::Progress& progress);
  // NCCL between GPUs, Gloo between CPUs.
  absl::StatusOr<std::unique_ptr<Communicator>> MakeWorld(int size);
  absl::Status ResolveThreshold();

  const Config config_;
  const bool takes_assignment_;
  std::unique_ptr<Rank> rank_;
  // What rank_ was loaded for, the map's epoch left out; empty: the whole model.
  std::optional<Rank::Part> part_;
  mutable std::mutex mutex_;
  // All up to prepared_ are guarded by mutex_.
  uint64_t epoch_ = 0;                 // of the map that rank_ was assigned last; 0: there is none
  std::optional<Rank::Part> serving_;  // part_
  std::optional<ModelIdentity> checkpoint_;    // of what was loaded first
  ServedCheckpoint served_;                    // of the folder, once that was loaded and found out
  std::shared_ptr<const LoadedModel> loaded_;  // rank_'s
  std::optional<Prepared> prepared_;

  // Whose state rank_'s pages hold: the session and its home. 0: nobody's.
  uint64_t kept_epoch_ = 0;
  int kept_home_ = 0;

  std::shared_ptr<SessionMeeting> meeting_;  // of the session
  std::optional<RankLinks> links_;           // empty: the rank is alone
};

}  // namespace troupe

#endif  // TROUPE_WORKER_RANK_MEMBER_H_
