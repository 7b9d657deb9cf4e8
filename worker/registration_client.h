// Client of Admin.RegisterWorker.
//
// Thread model: one call at a time, started by one owner; `done` runs once, on one of gRPC's
// threads. The destructor cancels the call under way, whose `done` still runs.
#ifndef TROUPE_WORKER_REGISTRATION_CLIENT_H_
#define TROUPE_WORKER_REGISTRATION_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "troupe/v1/admin.pb.h"

namespace troupe {

class RegistrationClient {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<v1::RegisterWorkerReply>)>;

  virtual ~RegistrationClient() = default;
  // DEADLINE_EXCEEDED or UNAVAILABLE: retry; ALREADY_EXISTS: the name belongs to another worker.
  virtual void Register(const v1::RegisterWorkerRequest& request, Done done) = 0;
};

// The connection is made by the first call, and anew when it is lost.
std::unique_ptr<RegistrationClient> DialCoordinator(const std::string& address);

}  // namespace troupe

#endif  // TROUPE_WORKER_REGISTRATION_CLIENT_H_
