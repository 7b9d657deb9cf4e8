// Ranks of a replica in simulation: machines that announce themselves, prepare shards of a real map
// part by part from peers and disk, serve sessions together, die and come back.
//
// What a rank holds is the parts that it has loaded, and its digest is taken from those. A session
// computes with the FakeWorker's rules, and every step checks that the rank holds, right then, all
// that the session's map gives it: a layout that is neither the old nor the new one fails the test.
//
// Thread model: the simulation's one thread. Ownership: ranks outlive the simulation's actors.
#ifndef TROUPE_COORDINATOR_TESTING_SIM_RANK_H_
#define TROUPE_COORDINATOR_TESTING_SIM_RANK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/sim_executor.h"
#include "coordinator/reshard/rank_control.h"
#include "coordinator/scheduler/fake_worker.h"
#include "coordinator/worker_link.h"
#include "sharding/reshard_plan.h"

namespace troupe::testing {

class SimRanks;

// What lies in a rank's pages: what the FakeWorker there has written, for which part of the model.
struct SimPages {
  std::shared_ptr<FakeWorker> worker;
  ShardMap map;
  int rank = 0;
  uint64_t written_epoch = 0;  // the session that wrote there last
  int written_home = 0;
};

class SimRank {
 public:
  SimRank(SimRanks* ranks, std::string name);
  ~SimRank();

  // Switches it on, with nothing in memory, and announces it for as long as it is on.
  void Start();
  // Its sessions and calls end, its memory is gone.
  void Kill();
  bool on() const { return on_; }
  const std::string& name() const { return name_; }
  // Maps that it holds.
  std::set<uint64_t> epochs() const;
  // Of the next shard that it prepares, one part gets lost on the way.
  void LoseAPart() { lose_a_part_ = true; }
  // And one is read with another value than the checkpoint's.
  void DamageAPart() { damage_a_part_ = true; }
  // Its folder holds no weights.
  void LacksWeights() { lacks_weights_ = true; }
  bool lacks_weights() const { return lacks_weights_; }
  // Its folder holds another model.
  void HasModel(const std::string& identity) { identity_ = identity; }

  // The coordinator's calls.
  std::unique_ptr<RankControl::Call> Prepare(const v1::PrepareShardRequest& request,
                                             ActorRef<ReshardMessage> owner);
  void Retire(uint64_t keep_epoch, uint64_t epoch, ActorRef<ReshardMessage> owner);

  // True: it can compute with this map.
  bool Holds(const v1::ShardMap& map, int rank) const;
  bool HasPart(uint64_t epoch, const WeightPart& part) const;

  // The pages of the part that a session gives it: those that are there, where it keeps the same
  // state as before.
  SimPages& TakePages(const v1::ShardMap& map, int rank, uint64_t session_epoch);
  void OnWritten(uint64_t session_epoch);

  // Called when the machine goes off, while what is called is alive.
  void OnKill(const std::weak_ptr<std::function<void()>>& told) { on_kill_.push_back(told); }

 private:
  class Preparation;

  void Announce(uint64_t incarnation);

  SimRanks* const ranks_;
  const std::string name_;
  bool on_ = false;
  bool lose_a_part_ = false;
  bool damage_a_part_ = false;
  bool lacks_weights_ = false;
  std::optional<std::string> identity_;  // empty: everybody's
  uint64_t incarnation_ = 0;
  std::map<uint64_t, std::set<WeightPart>> held_;  // by epoch
  FakeCache cache_;                                // stays empty
  std::optional<SimPages> pages_;
  std::weak_ptr<Preparation> preparation_;
  std::vector<std::weak_ptr<std::function<void()>>> on_kill_;
};

// All ranks, the network between them and the coordinator, and what is true of the replica.
class SimRanks {
 public:
  struct Config {
    ModelDescription model;
    std::string identity;
    v1::WorkerInfo info;
    FakeWorker::Config worker;
    int64_t max_delay_us = 300;  // of a message
    int64_t step_us = 1'000;     // of a step
    double peer_bytes_per_us = 400;
    double disk_bytes_per_us = 100;
    int64_t heartbeat_us = 20'000;
    // What each home's ranks tell with every step, as StepResult's.
    std::vector<uint32_t> expert_tokens;
  };
  // `event` is told each step of a change as it reaches a rank.
  SimRanks(Config config, SimExecutor* executor, std::function<void(const std::string&)> event);

  SimRank& Add(const std::string& name);
  SimRank& at(const std::string& name) { return *ranks_.at(name); }
  const std::map<std::string, std::unique_ptr<SimRank>>& all() const { return ranks_; }

  // Where ranks announce themselves; null while there is no coordinator.
  void SetFleet(ActorRef<FleetMessage> fleet) { fleet_ = std::move(fleet); }
  const ActorRef<FleetMessage>& fleet() const { return fleet_; }
  // Links and controls of one coordinator's life; once `*alive` is false nothing gets through.
  WorkerLinkFactory Links(std::shared_ptr<const bool> alive);
  std::unique_ptr<RankControl> Control(std::shared_ptr<const bool> alive);

  const Config& config() const { return config_; }
  SimExecutor& executor() { return *executor_; }
  void Event(const std::string& what) { event_(what); }
  absl::Duration Delay();
  // A step was computed by all ranks of a map.
  void OnStep(uint64_t map_epoch);
  uint64_t last_step_epoch() const { return last_step_epoch_; }
  int64_t last_step_us() const { return last_step_us_; }
  int64_t longest_stall_us() const { return longest_stall_us_; }
  void ResetStall() { longest_stall_us_ = 0; }

 private:
  const Config config_;
  SimExecutor* const executor_;
  const std::function<void(const std::string&)> event_;
  std::map<std::string, std::unique_ptr<SimRank>> ranks_;
  ActorRef<FleetMessage> fleet_;
  uint64_t last_step_epoch_ = 0;
  int64_t last_step_us_ = 0;
  int64_t longest_stall_us_ = 0;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_TESTING_SIM_RANK_H_
