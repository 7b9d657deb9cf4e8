// The client's end of Inference and Admin, for the commands.
//
// Thread model: thread-safe. Ownership: owns its connection.
#ifndef TROUPE_CLI_GENERATE_CLIENT_H_
#define TROUPE_CLI_GENERATE_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/v1/admin.pb.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

// Lets another thread end a call. Thread-safe; may outlive the call.
class CallCanceller {
 public:
  CallCanceller();
  ~CallCanceller();
  CallCanceller(const CallCanceller&) = delete;
  CallCanceller& operator=(const CallCanceller&) = delete;

  void Cancel();
  bool cancelled() const;

 private:
  friend class GenerateClient;
  struct State;
  const std::shared_ptr<State> state_;
};

class GenerateClient {
 public:
  // `target`: host:port, or unix:PATH. Connects on the first call.
  explicit GenerateClient(const std::string& target);
  ~GenerateClient();

  struct CallOptions {
    std::string tenant;                  // empty: the server's default
    CallCanceller* canceller = nullptr;  // null: nobody cancels
  };

  // Runs one generation; `on_event` is called with each event, on this thread.
  absl::Status Generate(const v1::GenerateRequest& request, const CallOptions& options,
                        const std::function<void(const v1::GenerateEvent&)>& on_event);

  absl::StatusOr<v1::ClusterStatus> GetStatus();

  // Plans or changes a layout; `on_event` is called with each event, on this thread.
  absl::Status Reshard(const v1::ReshardRequest& request,
                       const std::function<void(const v1::ReshardEvent&)>& on_event);

 private:
  struct Stubs;
  const std::unique_ptr<Stubs> stubs_;
};

}  // namespace troupe

#endif  // TROUPE_CLI_GENERATE_CLIENT_H_
