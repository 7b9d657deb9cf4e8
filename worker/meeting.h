// Where the ranks of an epoch exchange what they need to reach each other, before there is a
// communicator: addresses for Gloo, NCCL's unique id. The coordinator carries it
// (worker/session_meeting.h).
//
// Thread model: one caller a member. Ownership: none.
#ifndef TROUPE_WORKER_MEETING_H_
#define TROUPE_WORKER_MEETING_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace troupe {

class Meeting {
 public:
  virtual ~Meeting() = default;

  // Hands in `mine` and waits for the others': what each member handed in, in rank order. All
  // members call it equally often. Errors name who is missing, or why the meeting was called off.
  virtual absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_MEETING_H_
