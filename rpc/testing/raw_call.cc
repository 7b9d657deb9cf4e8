#include "rpc/testing/raw_call.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"

namespace troupe::testing {

absl::StatusOr<std::string> RawCall(const std::shared_ptr<grpc::Channel>& channel,
                                    const std::string& method, const std::string& request) {
  const grpc::Slice slice(request);
  const grpc::ByteBuffer request_bytes(&slice, 1);
  grpc::ByteBuffer reply_bytes;
  grpc::ClientContext context;
  grpc::GenericStub stub(channel);
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, grpc::StubOptions(), &request_bytes, &reply_bytes,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  if (!status.ok()) return FromGrpcStatus(status);
  grpc::Slice reply;
  const grpc::Status dumped = reply_bytes.DumpToSingleSlice(&reply);
  if (!dumped.ok()) return FromGrpcStatus(dumped);
  return std::string(reinterpret_cast<const char*>(reply.begin()), reply.size());
}

// The message is one string field, the answer one enum field.
absl::StatusOr<int> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  }
  absl::StatusOr<std::string> reply = RawCall(channel, "/grpc.health.v1.Health/Check", request);
  if (!reply.ok()) return reply.status();
  return reply->size() == 2 ? (*reply)[1] : 0;
}

}  // namespace troupe::testing
