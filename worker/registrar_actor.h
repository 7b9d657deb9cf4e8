// Announces a worker to the coordinator, again and again: the calls are its heartbeat.
//
// Start order does not matter: while the coordinator cannot be reached it tries again with growing
// pauses.
//
// Thread model: an actor. Ownership: borrows the client, which outlives it.
#ifndef TROUPE_WORKER_REGISTRAR_ACTOR_H_
#define TROUPE_WORKER_REGISTRAR_ACTOR_H_

#include <string>

#include "absl/time/time.h"
#include "base/actor.h"
#include "worker/messages.h"
#include "worker/registration_client.h"

namespace troupe {

class RegistrarActor final : public Actor<RegistrarMessage> {
 public:
  struct Config {
    int64_t first_retry_ms = 100;  // doubles with each failure
    int64_t max_retry_ms = 2000;
  };

  // `refresh` brings the request up to date before each call; null: it stays as it is.
  using Refresh = std::function<void(v1::RegisterWorkerRequest&)>;
  RegistrarActor(const Config& config, v1::RegisterWorkerRequest request,
                 RegistrationClient* client, Refresh refresh = nullptr);

 private:
  void OnStart() override;
  void Handle(RegistrarMessage message) override;

  void On(Announce message);
  void On(const Announced& message);

  const Config config_;
  v1::RegisterWorkerRequest request_;
  RegistrationClient* const client_;
  const Refresh refresh_;
  int64_t retry_ms_;
  std::string last_error_;  // empty: registered
};

}  // namespace troupe

#endif  // TROUPE_WORKER_REGISTRAR_ACTOR_H_
