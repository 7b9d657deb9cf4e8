#include "coordinator/server.h"

#include <filesystem>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_util.h"
#include "coordinator/block_lookup_client.h"
#include "coordinator/muster.h"
#include "coordinator/reshard/rank_control_client.h"
#include "coordinator/worker_client.h"
#include "model/checkpoint.h"
#include "model/dummy_tokenizer.h"
#include "sharding/layout_plan.h"
#include "sharding/layout_rules.h"
#include "sharding/shard_map_proto.h"

namespace troupe {
namespace {

constexpr char kInferenceService[] = "troupe.v1.Inference";

v1::Sampling ToSampling(const GenerationDefaults& defaults) {
  v1::Sampling sampling;
  if (!defaults.do_sample) return sampling;
  // transformers' own default where the folder only says do_sample.
  sampling.set_temperature(defaults.temperature.value_or(1));
  if (defaults.top_p.has_value()) sampling.set_top_p(*defaults.top_p);
  if (defaults.top_k.has_value()) sampling.set_top_k(*defaults.top_k);
  if (defaults.min_p.has_value()) sampling.set_min_p(*defaults.min_p);
  if (defaults.repetition_penalty.has_value()) {
    sampling.set_repetition_penalty(*defaults.repetition_penalty);
  }
  return sampling;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> OpenTokenizer(
    const CoordinatorServer::Config& config, int vocab_size) {
  auto tokenizer = Tokenizer::Load(config.model + "/tokenizer.json");
  if (config.dummy_tokenizer && absl::IsNotFound(tokenizer.status())) {
    return MakeDummyTokenizer(vocab_size);
  }
  return tokenizer;
}

// The layout for ranks of so much memory, each; `otherwise` where none fits: a worker may be given
// less context than the model's, which is not known here.
ShardMap MapWithin(const ModelDescription& model, const ShardMap& otherwise, int64_t memory_bytes) {
  const absl::StatusOr<LayoutChoice> choice = ChooseLayout(
      model, {.ranks = otherwise.layout.world()}, {.memory_bytes = memory_bytes}, MachineRates());
  if (!choice.ok()) {
    LOG(WARNING) << "no layout is sure to fit: " << choice.status();
    return otherwise;
  }
  LOG(INFO) << "a replica" << Field("layout", NameOf(choice->map.layout))
            << Field("rank_memory_bytes", memory_bytes);
  return choice->map;
}

// Puts ranks and layout of replicas into config.fleet.
absl::Status PlanRanks(CoordinatorServer::Config& config) {
  if (config.layout.empty() && config.ranks == 1 && !config.elastic) return absl::OkStatus();
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig model, ReadModelConfig(config.model));
  ShardMap map;
  if (config.layout.empty()) {
    TROUPE_ASSIGN_OR_RETURN(
        LayoutChoice choice,
        ChooseLayout(model.description, {.ranks = config.ranks}, Sizing(), MachineRates()));
    map = std::move(choice.map);
  } else {
    TROUPE_ASSIGN_OR_RETURN(const Layout layout, ParseLayout(config.layout));
    if (config.ranks != 1 && config.ranks != layout.world() && !config.elastic) {
      return absl::InvalidArgumentError(absl::StrCat("layout \"", config.layout, "\": has ",
                                                     layout.world(), " ranks, wanted ",
                                                     config.ranks, " (ranks)"));
    }
    TROUPE_ASSIGN_OR_RETURN(map, BuildShardMap(model.description, layout, /*epoch=*/0));
  }
  if (config.elastic) {
    config.reshard.model = std::make_shared<const ModelDescription>(model.description);
    config.reshard.layout = map.layout;
  }
  config.fleet.ranks = map.layout.world();
  LOG(INFO) << "replicas" << Field("ranks", config.fleet.ranks)
            << Field("layout", NameOf(map.layout));
  config.fleet.make_map = [map = ToProto(map)](const auto& /*members*/) { return map; };
  if (!config.layout.empty()) return absl::OkStatus();
  // Once they are there, with what they have.
  config.fleet.make_map = [model = model.description, map = std::move(map)](
                              const std::vector<v1::RegisterWorkerRequest>& members) {
    return ToProto(MapWithin(model, map, LeastMemoryBytes(members)));
  };
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<JobContext>> OpenModel(const CoordinatorServer::Config& config) {
  const std::string& folder = config.model;
  auto context = std::make_shared<JobContext>();
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig model_config, ReadModelConfig(folder));
  TROUPE_ASSIGN_OR_RETURN(context->tokenizer,
                          OpenTokenizer(config, model_config.description.vocab_size));
  absl::StatusOr<std::shared_ptr<const ChatTemplate>> chat_template = ChatTemplate::Load(folder);
  if (chat_template.ok()) {
    context->chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  ModelDefaults& model = context->model;
  model.name = std::filesystem::path(folder).lexically_normal().filename().string();
  if (model.name.empty()) {
    model.name = std::filesystem::path(folder).lexically_normal().parent_path().filename();
  }
  model.vocab_size = model_config.description.vocab_size;
  model.end_token_ids = model_config.description.end_tokens;
  model.sampling = ToSampling(model_config.generation_defaults);
  model.max_tokens = model_config.generation_defaults.max_new_tokens.value_or(0);
  return context;
}

}  // namespace

// Carries the fleet's readiness to the server's health service, whichever of the two is there
// first.
class CoordinatorServer::Readiness {
 public:
  void Attach(RpcServer* server) {
    std::lock_guard lock(mutex_);
    server_ = server;
    if (server_ != nullptr) server_->SetReady(kInferenceService, ready_);
  }
  void Set(bool ready) {
    std::lock_guard lock(mutex_);
    ready_ = ready;
    if (server_ != nullptr) server_->SetReady(kInferenceService, ready_);
  }
  bool ready() const {
    std::lock_guard lock(mutex_);
    return ready_;
  }

 private:
  mutable std::mutex mutex_;
  RpcServer* server_ = nullptr;
  bool ready_ = false;
};

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(const Config& given) {
  TROUPE_ASSIGN_OR_RETURN(std::shared_ptr<JobContext> context, OpenModel(given));
  Config config = given;
  TROUPE_RETURN_IF_ERROR(PlanRanks(config));
  std::error_code error;
  std::filesystem::create_directories(config.data_dir, error);
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat("data_dir ", config.data_dir,
                                                      ": cannot be made: ", error.message(),
                                                      "; choose a folder that can be written"));
  }
  TROUPE_ASSIGN_OR_RETURN(TenantNamespaces tenants,
                          TenantNamespaces::Open(config.data_dir + "/tenant-secret"));
  if (!config.cache.empty()) {
    context->lookup_blocks = LookupByStat(CacheClient::Connect(config.cache, {}));
  }
  auto server = std::unique_ptr<CoordinatorServer>(
      new CoordinatorServer(config, std::move(context), std::move(tenants)));
  TROUPE_ASSIGN_OR_RETURN(
      server->rpc_, RpcServer::Start(config.rpc, {server->inference_.get(), server->admin_.get()}));
  server->readiness_->Attach(server->rpc_.get());
  return server;
}

CoordinatorServer::CoordinatorServer(const Config& config, std::shared_ptr<JobContext> context,
                                     TenantNamespaces tenants)
    : started_(absl::Now()),
      ranks_(static_cast<int>(config.fleet.ranks)),
      readiness_(std::make_shared<Readiness>()),
      context_(std::move(context)),
      executor_({.name = "coord", .thread_count = config.threads}),
      long_prompts_({.name = "prompts", .thread_count = 1}),
      disk_({.name = "disk", .thread_count = 1}),
      fleet_(Spawn<FleetActor>(
          executor_, ActorOptions{.name = "fleet", .mailbox_capacity = 16384}, config.fleet,
          GrpcWorkerLinks(), [readiness = readiness_](bool ready) { readiness->Set(ready); },
          MakeReshard(config))) {
  context_->fleet = fleet_.ref();
  context_->long_prompts = &long_prompts_;
  inference_ =
      std::make_unique<InferenceService>(config.service, context_, std::move(tenants), &executor_);
  admin_ = std::make_unique<AdminService>(fleet_.ref(),
                                          [this](v1::ClusterStatus& status) { Complete(status); });
}

FleetActor::ReshardFactory CoordinatorServer::MakeReshard(const Config& config) {
  if (!config.elastic) return nullptr;
  return [this, path = config.data_dir + "/reshard.log",
          reshard = config.reshard](ActorRef<FleetMessage> fleet) {
    return Spawn<ReshardActor>(executor_, ActorOptions{.name = "reshard"}, reshard,
                               GrpcRankControl(), OpenDecisionFile(path, &disk_), std::move(fleet),
                               nullptr);
  };
}

bool CoordinatorServer::ready() const { return readiness_->ready(); }

CoordinatorServer::~CoordinatorServer() { Shutdown(absl::ZeroDuration()); }

void CoordinatorServer::Shutdown(absl::Duration grace) {
  readiness_->Attach(nullptr);
  if (rpc_ != nullptr) rpc_->Shutdown(grace);
  if (!fleet_) return;
  fleet_.Stop(StopMode::kDrop);
  fleet_.Join();
  fleet_ = {};
  long_prompts_.Shutdown();
  executor_.Shutdown();
  disk_.Shutdown();
}

void CoordinatorServer::Complete(v1::ClusterStatus& status) const {
  status.set_version(TROUPE_VERSION);
  status.set_model(context_->model.name);
  status.set_uptime_us(absl::ToInt64Microseconds(absl::Now() - started_));
  status.set_requests_accepted(inference_->accepted());
  status.set_requests_finished(context_->finished);
  status.set_requests_failed(context_->failed);
  status.set_requests_cancelled(context_->cancelled);
}

}  // namespace troupe
