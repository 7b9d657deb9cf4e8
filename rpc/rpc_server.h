// A gRPC server with what every Troupe program serves beside its own services: the health service,
// reflection, keepalive, message limits and a graceful stop.
//
// Health: the name "" is serving as long as the server lives; a service's own name
// ("troupe.v1.Cache") is what SetReady last said, and not serving before.
//
// Thread model: thread-safe, except that Shutdown is called by one thread.
// Ownership: services belong to the caller and must outlive the server. Health and reflection are
// registered process-wide in gRPC, once; servers of one process do not share anything else.
#ifndef TROUPE_RPC_RPC_SERVER_H_
#define TROUPE_RPC_RPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
class Server;
class Service;
}  // namespace grpc

namespace troupe {

class RpcServer {
 public:
  struct Config {
    std::string listen = "127.0.0.1:0";   // port 0: any that is free
    int32_t max_receive_bytes = 4 << 20;  // of one message
    int32_t keepalive_time_ms = 20000;    // silence after which a peer is probed
    int32_t keepalive_timeout_ms = 10000;
    int32_t max_streams_per_connection = 1024;
  };

  // UNAVAILABLE when the address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const Config& config, const std::vector<grpc::Service*>& services);

  // Shuts down at once if nobody has.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const { return port_; }

  void SetReady(const std::string& service_name, bool ready);

  // A channel to this server that needs no socket. No call may start on it once Shutdown has begun
  // (gRPC 1.51 dereferences null there): end its users first.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // Reports not serving, takes no new calls, waits `grace` for those under way, cancels the rest.
  // Returns when no handler runs any more.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, int port);

  std::unique_ptr<grpc::Server> server_;
  const int port_;
  bool shut_down_ = false;
};

}  // namespace troupe

#endif  // TROUPE_RPC_RPC_SERVER_H_
