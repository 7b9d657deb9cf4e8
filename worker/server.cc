#include "worker/server.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_util.h"
#include "kernels/host_limits.h"
#include "model/checkpoint.h"
#include "worker/executor_actor.h"

namespace troupe {
namespace {

// Where others reach a server that listens on `listen` and got `port`.
absl::StatusOr<std::string> AdvertisedAddress(const WorkerServer::Config& config, int port) {
  if (!config.advertise.empty()) return config.advertise;
  const std::string& listen = config.rpc.listen;
  if (absl::StartsWith(listen, "unix:")) return listen;
  const std::string host = listen.substr(0, listen.rfind(':'));
  if (host != "0.0.0.0" && host != "[::]" && host != "::") return absl::StrCat(host, ":", port);
  return absl::InvalidArgumentError(
      absl::StrCat("advertise: found none beside listen \"", listen,
                   "\", wanted the host:port at which the coordinator reaches this machine"));
}

// The host of an address, without brackets; empty: it has none.
std::string HostOf(const std::string& address) {
  if (address.empty() || absl::StartsWith(address, "unix:")) return "";
  std::string host = address.substr(0, address.rfind(':'));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  return host == "0.0.0.0" || host == "::" ? "" : host;
}

std::string RanksHost(const WorkerServer::Config& config) {
  if (!config.ranks_host.empty()) return config.ranks_host;
  std::string host = HostOf(config.advertise);
  if (host.empty()) host = HostOf(config.rpc.listen);
  return host.empty() ? "127.0.0.1" : host;
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

absl::Status CheckConfig(const WorkerServer::Config& config) {
  const Rank::Config& rank = config.rank;
  const auto check = [](absl::string_view field, int64_t found, int64_t least) {
    if (found >= least) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": found ", found, ", wanted at least ", least));
  };
  TROUPE_RETURN_IF_ERROR(check("max_rows", rank.max_rows, 1));
  TROUPE_RETURN_IF_ERROR(check("max_step_tokens", rank.max_step_tokens, rank.max_rows));
  TROUPE_RETURN_IF_ERROR(check("kv_memory_bytes", rank.kv_memory_bytes, 1));
  TROUPE_RETURN_IF_ERROR(check("host_kv_memory_bytes", rank.host_kv_memory_bytes, 0));
  TROUPE_RETURN_IF_ERROR(check("threads", rank.threads, 0));
  return check("max_queued_plans", config.service.max_queued_plans, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(const Config& config,
                                                                  const Rank::Progress& progress) {
  TROUPE_RETURN_IF_ERROR(CheckConfig(config));
  std::unique_ptr<WorkerServer> server(new WorkerServer(config));
  TROUPE_RETURN_IF_ERROR(server->Serve(config, progress));
  if (!config.coordinator.empty()) server->Announce(config);
  return server;
}

WorkerServer::WorkerServer(const Config& config)
    : cache_(config.cache.empty() ? nullptr
                                  : CacheClient::Connect(config.cache, config.cache_client)),
      device_executor_({.name = "device", .thread_count = 1}),
      control_executor_({.name = "control", .thread_count = 1}),
      loader_(std::make_unique<ThreadExecutor>(
          ThreadExecutor::Options{.name = "loader", .thread_count = 1})),
      sender_(std::make_unique<ThreadExecutor>(
          ThreadExecutor::Options{.name = "sender", .thread_count = 1})) {}

absl::Status WorkerServer::Serve(const Config& config, const Rank::Progress& progress) {
  const RankMember::Config member{.rank = config.rank,
                                  .gate_threshold = config.gate_threshold,
                                  .cache_address = config.cache,
                                  .host = RanksHost(config),
                                  .collective_timeout = config.collective_timeout};
  if (config.sharded) {
    // What can be known to be wrong without a rank shows now.
    TROUPE_RETURN_IF_ERROR(ReadModelConfig(config.rank.model).status());
    member_ = RankMember::Assigned(member);
  } else {
    TROUPE_ASSIGN_OR_RETURN(member_, RankMember::Whole(member, progress));
  }
  // The service bounds the plans; beside them there is room for the ends of all transfers.
  const size_t capacity = 64 + config.service.max_queued_plans + 2 * config.transfers.max_under_way;
  executor_ = Spawn<ExecutorActor>(device_executor_,
                                   ActorOptions{.name = "executor", .mailbox_capacity = capacity},
                                   config.transfers, member_.get(), cache_.get());
  service_ =
      std::make_unique<WorkerService>(config.service, executor_.ref(), &device_executor_.clock());
  TROUPE_ASSIGN_OR_RETURN(rpc_, RpcServer::Start(config.rpc, {service_.get()}));
  TROUPE_ASSIGN_OR_RETURN(address_, AdvertisedAddress(config, rpc_->port()));
  if (!config.sharded) info_ = member_->Describe();
  info_.set_worker(config.name.empty() ? address_ : config.name);
  if (config.sharded) {
    service_->AllowShards(member_.get(), loader_.get(), sender_.get());
    service_->OpenForAssignments(info_.worker());
  } else {
    service_->Open(info_);
  }
  rpc_->SetReady(v1::Worker::service_full_name(), true);
  return absl::OkStatus();
}

void WorkerServer::Announce(const Config& config) {
  v1::RegisterWorkerRequest request;
  request.set_worker(info_.worker());
  request.set_address(address_);
  // Starts of one worker's process are further apart than the clock's steps.
  request.set_incarnation(absl::ToUnixMicros(absl::Now()));
  request.set_takes_assignment(config.sharded);
  request.set_node(HostName());
  request.set_device(config.rank.device);
  request.set_lacks_weights(!config.rank.dummy_weights &&
                            !SafetensorsCheckpoint::IsIn(config.rank.model));
  // Before anything is loaded. What a GPU has is not known here.
  if (config.rank.device == "cpu") request.set_memory_bytes(AvailableMemoryBytes());
  registration_ = DialCoordinator(config.coordinator);
  registrar_ = Spawn<RegistrarActor>(
      control_executor_, ActorOptions{.name = "registrar"}, config.registrar, std::move(request),
      registration_.get(), [this](v1::RegisterWorkerRequest& announced) {
        const std::vector<uint64_t> epochs = member_->MapEpochs();
        announced.mutable_map_epochs()->Assign(epochs.begin(), epochs.end());
        announced.set_serves_weights(member_->Served().files != nullptr);
      });
}

WorkerServer::~WorkerServer() { Shutdown(absl::ZeroDuration()); }

void WorkerServer::Shutdown(absl::Duration grace) {
  if (registrar_) {
    registrar_.Stop(StopMode::kDrop);
    registrar_.Join();
    registrar_ = {};
  }
  registration_.reset();
  if (service_ != nullptr) service_->BeginShutdown();
  if (rpc_ != nullptr) rpc_->Shutdown(grace);
  if (executor_) {
    executor_.Stop(StopMode::kDrop);
    executor_.Join();
    executor_ = {};
  }
  if (loader_ != nullptr) std::exchange(loader_, nullptr)->Shutdown();
  if (sender_ != nullptr) std::exchange(sender_, nullptr)->Shutdown();
}

}  // namespace troupe
