// What a WorkerLink tells its SchedulerActor about one rank's session. Plain structs.
#ifndef TROUPE_COORDINATOR_LINK_MESSAGES_H_
#define TROUPE_COORDINATOR_LINK_MESSAGES_H_

#include <string>

#include "absl/status/status.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

// A rank is there: it has answered Hello, after loading and meeting where it was assigned. From its
// WorkerLink, once.
struct LinkUp {
  int rank = 0;
  v1::WorkerInfo info;
};
// Before that. From the rank's WorkerLink.
struct RankLoading {
  int rank = 0;
  v1::Loading loading;
};
struct RankContribution {
  int rank = 0;
  std::string bytes;
};
// The rank's oldest plan in flight is done. From its WorkerLink.
struct StepDone {
  int rank = 0;
  v1::StepResult result;
};
// The stream has ended. From the rank's WorkerLink, last and once.
struct LinkDown {
  int rank = 0;
  absl::Status status;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_LINK_MESSAGES_H_
