// Worker machines of a simulation: each has an address, announces itself to the fleet, serves one
// session after the other, dies and comes back. What they compute is FakeWorker's: every rule of
// the protocol is checked, and the right tokens are known beforehand.
//
// Thread model: the simulation's one thread. Ownership: machines outlive the simulation's actors;
// the executor and the cache outlive the machines.
#ifndef TROUPE_COORDINATOR_TESTING_SIM_WORKER_H_
#define TROUPE_COORDINATOR_TESTING_SIM_WORKER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/actor.h"
#include "base/sim_executor.h"
#include "coordinator/messages.h"
#include "coordinator/scheduler/fake_worker.h"
#include "coordinator/worker_link.h"
#include "troupe/v1/worker.pb.h"

namespace troupe::testing {

// What a small worker announces: two groups, all tokens and a window of 40; blocks of 16 tokens.
v1::WorkerInfo SmallWorkerInfo(const std::string& name);

// One machine.
class SimMachine {
 public:
  struct Config {
    FakeWorker::Config worker;
    int64_t max_delay_us = 2000;  // of a connection, and of a step
    int64_t heartbeat_us = 20'000;
    bool takes_assignment = false;
  };

  // Off until Start. `info.worker()` is the name it announces.
  SimMachine(const Config& config, v1::WorkerInfo info, std::string address, SimExecutor* executor,
             FakeCache* cache);
  ~SimMachine();

  // Switches it on: it announces itself to `fleet`, under a new incarnation.
  void Start(const ActorRef<FleetMessage>& fleet);
  // Switches it off: its sessions end, what it had computed is gone.
  void Kill();
  // The process starts anew before anybody has seen it end: the old session says nothing more.
  void RestartSilently(const ActorRef<FleetMessage>& fleet);
  // It goes on announcing itself and computes nothing more, as a device that hangs.
  void Freeze();
  // Against the protocol: a second WorkerInfo in the sessions there are.
  void AnnounceAgainInSession();

  bool on() const { return on_; }
  bool frozen() const { return frozen_; }
  const std::string& address() const { return address_; }
  v1::WorkerInfo& info() { return info_; }
  uint32_t sessions() const { return sessions_; }

  // The coordinator dials.
  std::unique_ptr<WorkerLink> Connect(const v1::Hello& hello, ActorRef<SchedulerMessage> owner);

 private:
  class Session;
  class Link;

  void Announce(const ActorRef<FleetMessage>& fleet, uint64_t incarnation);
  absl::Duration Delay();

  const Config config_;
  v1::WorkerInfo info_;
  const std::string address_;
  SimExecutor* const executor_;
  FakeCache* const cache_;
  bool on_ = false;
  bool frozen_ = false;
  uint64_t incarnation_ = 0;
  uint32_t sessions_ = 0;
  std::vector<std::weak_ptr<Session>> live_;
};

// Dials by address; what is not there cannot be connected to.
class SimNetwork {
 public:
  explicit SimNetwork(SimExecutor* executor) : executor_(executor) {}
  SimMachine& Add(const SimMachine::Config& config, v1::WorkerInfo info, FakeCache* cache);
  WorkerLinkFactory Factory();
  SimMachine& at(size_t index) { return *machines_[index]; }
  size_t size() const { return machines_.size(); }

 private:
  SimExecutor* const executor_;
  std::vector<std::unique_ptr<SimMachine>> machines_;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_TESTING_SIM_WORKER_H_
