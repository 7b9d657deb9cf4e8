// A disk with one decision log, in simulation.
//
// Thread model: the simulation's one thread. Ownership: outlives the logs that it gave out.
#ifndef TROUPE_COORDINATOR_TESTING_SIM_DISK_H_
#define TROUPE_COORDINATOR_TESTING_SIM_DISK_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/sim_executor.h"
#include "coordinator/reshard/decision_log.h"

namespace troupe::testing {

// What is not durable when the coordinator dies may be there in part.
class SimDisk {
 public:
  SimDisk(SimExecutor* executor, std::function<void(const std::string&)> event)
      : executor_(executor), event_(std::move(event)) {}

  class Log final : public DecisionLog {
   public:
    Log(SimDisk* disk, std::shared_ptr<const bool> alive) : disk_(disk), alive_(std::move(alive)) {}
    void Read(absl::AnyInvocable<void(absl::StatusOr<DecisionRecord>)> done) override {
      size_t good = 0;
      absl::StatusOr<DecisionRecord> record = ReadDecisions(disk_->bytes_, &good);
      disk_->bytes_.resize(good);
      done(std::move(record));
    }
    void Append(DecisionKind kind, const v1::ShardMap& map,
                absl::AnyInvocable<void(absl::Status)> done) override {
      if (!*alive_) return;
      disk_->Write(DecisionLine(kind, map), alive_, std::move(done));
    }

   private:
    SimDisk* const disk_;
    const std::shared_ptr<const bool> alive_;
  };

  DecisionRecord Record() const {
    size_t good = 0;
    return ReadDecisions(bytes_, &good).value();
  }

 private:
  void Write(std::string line, std::shared_ptr<const bool> alive,
             absl::AnyInvocable<void(absl::Status)> done) {
    executor_->PostAfter(absl::Microseconds(200), [this, line = std::move(line), alive,
                                                   done = std::move(done)]() mutable {
      event_("half a line is on disk");
      if (!*alive) {
        bytes_ += line.substr(0, line.size() / 2);
        return;
      }
      bytes_ += line;
      event_("a line is on disk");
      executor_->PostAfter(absl::Microseconds(100), [done = std::move(done), alive]() mutable {
        if (*alive) done(absl::OkStatus());
      });
    });
  }

  SimExecutor* const executor_;
  const std::function<void(const std::string&)> event_;
  std::string bytes_;
};

}  // namespace troupe::testing

#endif  // TROUPE_COORDINATOR_TESTING_SIM_DISK_H_
