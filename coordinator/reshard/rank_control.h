// Asks ranks to prepare shards and to let go of them, whatever carries it: gRPC
// (rank_control_client.h), or simulated ranks in tests.
#ifndef TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_H_
#define TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_H_

#include <memory>
#include <string>

#include "base/actor.h"
#include "coordinator/reshard/messages.h"
#include "troupe/v1/shard.pb.h"

namespace troupe {

// Thread model: called by one ReshardActor; does not block. Answers are told to `owner`, also after
// the control is gone.
class RankControl {
 public:
  // A call under way; it is given up when this goes.
  class Call {
   public:
    virtual ~Call() = default;
  };

  virtual ~RankControl() = default;

  // Answered by PrepareProgressed, as it likes, and one PrepareEnded.
  virtual std::unique_ptr<Call> Prepare(const v1::RankMember& rank,
                                        const v1::PrepareShardRequest& request,
                                        ActorRef<ReshardMessage> owner) = 0;
  // Answered by RetireEnded with `epoch`.
  virtual void Retire(const v1::RankMember& rank, uint64_t keep_epoch, uint64_t epoch,
                      ActorRef<ReshardMessage> owner) = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_RANK_CONTROL_H_
