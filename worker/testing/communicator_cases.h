// What every Communicator does: bodies that each member runs, in a thread or a process of its own,
// on arrays in the memory that the communicator works in.
//
// Thread model: a body runs in the member's thread, and shares only `came`. Ownership: none.
#ifndef TROUPE_WORKER_TESTING_COMMUNICATOR_CASES_H_
#define TROUPE_WORKER_TESTING_COMMUNICATOR_CASES_H_

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "worker/communicator.h"

namespace troupe::testing {

struct CommunicatorMember {
  Communicator& communicator;
  Ops* ops = nullptr;  // null: arrays lie in the caller's memory
  std::atomic<int>& came;
};

struct CommunicatorCase {
  std::string name;
  std::vector<int> sizes;  // numbers of members to run it with
  std::function<void(const CommunicatorMember&)> body;
};

const std::vector<CommunicatorCase>& CommunicatorCases();

}  // namespace troupe::testing

#endif  // TROUPE_WORKER_TESTING_COMMUNICATOR_CASES_H_
