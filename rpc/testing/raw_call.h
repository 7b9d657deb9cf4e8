// Calls by method name and bytes, for tests of what has no generated code here: health, reflection,
// requests that are no message at all.
//
// Thread-safe. Blocks until the answer is there.
#ifndef TROUPE_RPC_TESTING_RAW_CALL_H_
#define TROUPE_RPC_TESTING_RAW_CALL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace troupe::testing {

// Sends one message and half-closes; returns the one message of the answer.
absl::StatusOr<std::string> RawCall(const std::shared_ptr<grpc::Channel>& channel,
                                    const std::string& method, const std::string& request);

inline constexpr int kServing = 1;
inline constexpr int kNotServing = 2;

// grpc.health.v1.Health/Check; "" asks for the whole server.
absl::StatusOr<int> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& service);

}  // namespace troupe::testing

#endif  // TROUPE_RPC_TESTING_RAW_CALL_H_
