// A whole coordinator in simulation: the real FleetActor, SchedulerActors and JobActors against
// simulated machines, with sinks that record and check what each client receives.
//
// Thread model: the simulation's one thread. Ownership: owns everything it runs. What a stream must
// always obey (order, one end, epochs) fails the current gtest test where it is broken.
#ifndef TROUPE_COORDINATOR_TESTING_SIM_CLUSTER_H_
#define TROUPE_COORDINATOR_TESTING_SIM_CLUSTER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/sim_executor.h"
#include "coordinator/fleet_actor.h"
#include "coordinator/job_actor.h"
#include "coordinator/testing/sim_worker.h"

namespace troupe::testing {

// What one client sent and received.
struct SimStream {
  JobActor::Request request;
  ActorHandle<JobMessage> job;
  int64_t accepted_us = 0;
  std::optional<uint32_t> give_up_after;  // the reader is too slow for more events

  std::optional<v1::Started> started;
  std::vector<uint32_t> tokens;
  std::string text;
  uint64_t epoch = 0;
  uint32_t steps = 0;
  uint32_t events = 0;
  std::optional<v1::Finished> finished;
  std::optional<absl::Status> closed;
  int64_t closed_us = 0;
  bool cancelled = false;  // by the client
};

class SimCluster {
 public:
  struct Config {
    uint64_t seed = 1;
    FleetActor::Config fleet;
    SimMachine::Config machine;
    bool lookup_cache = true;
  };

  SimCluster(const Config& config, std::shared_ptr<const Tokenizer> tokenizer);
  SimCluster(const SimCluster&) = delete;
  SimCluster& operator=(const SimCluster&) = delete;

  // A machine that is off.
  SimMachine& AddMachine(v1::WorkerInfo info) {
    return network_.Add(config_.machine, std::move(info), &cache_);
  }
  SimMachine& machine(size_t index) { return network_.at(index); }
  size_t machine_count() const { return network_.size(); }

  // A token_ids request of tenant namespace "0", seed 1.
  static JobActor::Request Request(std::vector<uint32_t> prompt, uint32_t max_tokens);
  SimStream& Submit(JobActor::Request request);
  void Cancel(SimStream& stream);

  absl::StatusOr<v1::RegisterWorkerReply> Register(const std::string& name,
                                                   const std::string& address,
                                                   uint64_t incarnation);
  v1::ClusterStatus Describe();
  // The worker's entry; an empty one where there is none.
  v1::WorkerStatus DescribeWorker(const std::string& name);

  // The tokens that a request must give, computed without any scheduler, and whether the last of
  // them is a stop token.
  struct Expected {
    std::vector<uint32_t> tokens;
    bool stopped = false;
  };
  Expected Expect(const JobActor::Request& request, const v1::WorkerInfo& info) const;

  bool AllClosed() const;
  SimExecutor& sim() { return sim_; }
  ActorRef<FleetMessage> fleet() const { return fleet_.ref(); }
  JobContext& context() { return *context_; }
  const std::vector<bool>& readiness() const { return readiness_; }
  const std::vector<std::unique_ptr<SimStream>>& streams() const { return streams_; }
  int64_t NowUs() const { return sim_.clock().MonotonicNs() / 1000; }

 private:
  class Sink;

  BlockLookup Lookup();

  const Config config_;
  FakeCache cache_;
  SimNetwork network_;
  SimExecutor sim_;
  std::vector<bool> readiness_;
  std::shared_ptr<JobContext> context_;
  ActorHandle<FleetMessage> fleet_;
  std::vector<std::unique_ptr<SimStream>> streams_;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_TESTING_SIM_CLUSTER_H_
