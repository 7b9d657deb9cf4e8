#include "worker/rank.h"

#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_util.h"
#include "kernels/device.h"
#include "model/checkpoint.h"
#include "sharding/rank_shard.h"

namespace troupe {
namespace {

// Raised whenever what the bytes of a page mean changes; see model/description.h.
constexpr uint32_t kPageLayoutVersion = 1;

constexpr char kThresholdVariable[] = "DYNAMIC_ATTENTION_THRESHOLD";

v1::KvGroup::Kind KindOf(StateGroupKind kind) {
  switch (kind) {
    case StateGroupKind::kFull:
      return v1::KvGroup::KIND_FULL;
    case StateGroupKind::kWindow:
      return v1::KvGroup::KIND_WINDOW;
    case StateGroupKind::kCompressed:
      return v1::KvGroup::KIND_COMPRESSED;
  }
  CHECK(false) << "unknown kind of state group";
}

float DefaultThreshold(const ModelDescription& description) {
  for (const LayerDescription& layer : description.layers) {
    if (layer.attention.head_gate.has_value()) return layer.attention.head_gate->threshold;
  }
  return 0;
}

absl::Status ResolveContext(const ModelDescription& description, int* max_context) {
  if (*max_context == 0) *max_context = description.max_context_tokens;
  if (*max_context >= 2 && *max_context <= description.max_context_tokens) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("max_context: found ", *max_context,
                                                 ", wanted 2 to ", description.max_context_tokens,
                                                 ", what the model was made for"));
}

absl::StatusOr<std::unique_ptr<KvPages>> PagesOf(Ops* ops, const RankShard& shard,
                                                 const Rank::Config& config) {
  KvPages::Options options;
  TROUPE_ASSIGN_OR_RETURN(options.dtype, ResolveKvDType(config.kv_cache_dtype, config.mode));
  if (options.dtype == DType::kE4M3) {
    const auto takes = [ops](const KvUse& use) { return ops->TakesE4M3(use); };
    TROUPE_RETURN_IF_ERROR(CheckFp8Kv(takes, shard, config.device));
  }
  options.slots = config.max_rows;
  options.max_context_tokens = config.max_context;
  std::vector<StateGroup> groups =
      ShardStateGroups(shard, {.kv_bytes_per_element = static_cast<int>(BytesOf(options.dtype)),
                               .kv_scale_bytes = static_cast<int>(ScaleBytesOf(options.dtype))});
  auto page_count = PlanPages(groups, {.budget_bytes = config.kv_memory_bytes,
                                       .max_context_tokens = config.max_context,
                                       .sequences = config.max_rows,
                                       .step_tokens = config.max_step_tokens});
  if (!page_count.ok()) {
    return Annotate(page_count.status(), "kv_memory_bytes, max_context and max_rows");
  }
  options.page_count = *std::move(page_count);
  return KvPages::Create(ops, std::move(groups), std::move(options));
}

std::string Sha256(const std::string& text) {
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned int size = 0;
  CHECK_EQ(EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(digest.data()),
                      &size, EVP_sha256(), nullptr),
           1);
  digest.resize(size);
  return digest;
}

std::string CacheIdentity(const std::string& identity, const std::optional<Rank::Part>& part) {
  if (!part.has_value() || (part->map.layout.tp == 1 && part->map.layout.pp == 1)) return identity;
  const RankPlace place = part->map.Place(part->rank);
  return Sha256(absl::StrCat("troupe part\n", identity, "\nheads ", place.tp_index, "/",
                             part->map.layout.tp, "\nlayers ", part->map.first_layer[place.stage],
                             " to ", part->map.first_layer[place.stage + 1], "\n"));
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> OpenCheckpoint(const Rank::Config& config) {
  DummyOptions options{.threads = config.threads};
  options.dtype = config.mode == ComputeMode::kF32 ? StoredDType::kF32 : StoredDType::kBF16;
  absl::StatusOr<Checkpoint> opened = config.dummy_weights
                                          ? Checkpoint::OpenDummy(config.model, options)
                                          : Checkpoint::Open(config.model);
  if (!opened.ok()) return opened.status();
  return std::make_shared<const Checkpoint>(*std::move(opened));
}

// The checkpoint that a rank loads, and what brings its bytes.
struct Weights {
  std::shared_ptr<const Checkpoint> files;  // the folder's
  std::unique_ptr<PeerCheckpoint> peers;    // null: `files` are all

  const Checkpoint& checkpoint() const { return peers == nullptr ? *files : peers->checkpoint(); }
};

// Of the folder, of the peers that the plan names, or of any where the folder has none.
absl::StatusOr<Weights> OpenWeights(
    const Rank::Config& config, PeerPlan plan,
    const std::function<absl::StatusOr<ModelIdentity>(const Checkpoint&)>& identify) {
  Weights weights;
  const bool lacks = !config.dummy_weights && !SafetensorsCheckpoint::IsIn(config.model);
  if (!lacks || plan.peers.empty()) {
    TROUPE_ASSIGN_OR_RETURN(weights.files, OpenCheckpoint(config));
  }
  const bool ask = !plan.sources.empty() && config.load_from_peers && !config.dummy_weights;
  if (plan.peers.empty() || (!lacks && !ask)) return weights;
  std::optional<PeerCheckpoint::Local> local;
  if (weights.files != nullptr) {
    local = {.files = weights.files.get(),
             .identity = [identify, files = weights.files] { return identify(*files); }};
  }
  auto opened = PeerCheckpoint::Open(config.model, std::move(plan), local);
  if (opened.ok()) {
    weights.peers = *std::move(opened);
  } else if (weights.files == nullptr) {
    return opened.status();
  } else {
    LOG(WARNING) << "weights come from disk: " << opened.status();
  }
  return weights;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rank>> Rank::Open(const Config& config,
                                                 const std::optional<Part>& part,
                                                 const Progress& progress, RankGiven given) {
  const auto report = [&progress](absl::string_view what) {
    return [&progress, what](int64_t done, int64_t total) {
      if (progress) progress(what, done, total);
    };
  };
  TROUPE_ASSIGN_OR_RETURN(const std::optional<IntegerFormat> quantize,
                          ParseIntegerFormat(config.quantize));
  const int threads = config.threads > 0 ? config.threads : 2;
  const auto identify = [&](const Checkpoint& files) -> absl::StatusOr<ModelIdentity> {
    if (given.checkpoint.has_value()) return *given.checkpoint;
    return files.ComputeIdentity(threads, report("identity"));
  };
  TROUPE_ASSIGN_OR_RETURN(const Weights weights,
                          OpenWeights(config, std::move(given.peers), identify));
  const Checkpoint& checkpoint = weights.checkpoint();
  auto rank = std::make_unique<Rank>();
  rank->config = config;
  TROUPE_RETURN_IF_ERROR(ResolveContext(checkpoint.description(), &rank->config.max_context));
  rank->gate_threshold = DefaultThreshold(checkpoint.description());
  if (part.has_value()) {
    TROUPE_RETURN_IF_ERROR(ValidateShardMap(checkpoint.description(), part->map));
  }
  const RankShard shard = part.has_value()
                              ? ShardOf(checkpoint.description(), part->map, part->rank)
                              : WholeModel(checkpoint.description());

  TROUPE_ASSIGN_OR_RETURN(rank->ops, MakeOps(config.device, {.threads = config.threads}));
  if (config.wrap_ops != nullptr) rank->ops = config.wrap_ops(std::move(rank->ops));
  LoadOptions load{
      .mode = config.mode, .quantize = quantize, .shard = &shard, .progress = report("weights")};
  if (config.calibration != nullptr) {
    if (config.device != "cpu") {
      return absl::InvalidArgumentError(
          absl::StrCat("calibration: found device ", config.device, ", wanted cpu"));
    }
    rank->ops = MakeCalibrationOps(std::move(rank->ops), config.calibration);
    load.with_mtp = true;
    load.packed = [&](const PackedMatrix* matrix, const std::vector<LinearWeights>& parts) {
      config.calibration->Name(matrix, parts);
    };
  }
  // Before the weights: that memory is short shows at once.
  if (!given.pages) TROUPE_RETURN_IF_ERROR(rank->MakePagesOf(shard));
  if (weights.peers != nullptr) {
    rank->checkpoint = weights.peers->identity();
  } else {
    TROUPE_ASSIGN_OR_RETURN(rank->checkpoint, identify(checkpoint));
    if (!config.dummy_weights) rank->files = weights.files;
  }
  TROUPE_ASSIGN_OR_RETURN(const DType kv_dtype, ResolveKvDType(config.kv_cache_dtype, config.mode));
  rank->identity = ServingIdentity(rank->checkpoint, config.mode, quantize, kv_dtype);
  load.threads = threads;
  std::optional<CheckpointReader> reader;
  if (given.digests || weights.peers != nullptr)
    load.reader = &reader.emplace(checkpoint, shard, threads, weights.peers.get());
  load.keep = given.keep.get();
  TROUPE_ASSIGN_OR_RETURN(LoadedModel model, LoadModel(checkpoint, rank->ops.get(), load));
  rank->model = std::make_shared<const LoadedModel>(std::move(model));
  if (reader.has_value()) rank->read = reader->read();
  rank->cache_identity = CacheIdentity(rank->identity, part);
  if (!part.has_value()) TROUPE_RETURN_IF_ERROR(rank->Connect(/*links=*/nullptr));
  return rank;
}

std::vector<WeightPiece> Rank::WeightDigests() const {
  std::vector<WeightPiece> all;
  for (const auto& [part, loaded] : model->parts) {
    all.insert(all.end(), loaded.pieces.begin(), loaded.pieces.end());
  }
  return all;
}

absl::Status Rank::TakePages(Rank& from) {
  from.ops->Synchronize();
  if (from.copies != nullptr) from.copies->Synchronize();
  TROUPE_RETURN_IF_ERROR(from.ops->status());
  pages = std::move(from.pages);
  TROUPE_RETURN_IF_ERROR(pages->Rebind(ops.get()));
  host_pages = std::move(from.host_pages);
  return host_pages == nullptr ? absl::OkStatus() : MakeCopies();
}

absl::Status Rank::MakePages() { return MakePagesOf(model->shard); }

absl::Status Rank::MakePagesOf(const RankShard& shard) {
  TROUPE_ASSIGN_OR_RETURN(pages, PagesOf(ops.get(), shard, config));
  if (config.host_kv_memory_bytes == 0) return absl::OkStatus();
  TROUPE_RETURN_IF_ERROR(MakeCopies());
  std::vector<uint32_t> device_pages;
  for (size_t g = 0; g < pages->groups().size(); ++g) {
    device_pages.push_back(pages->page_count(static_cast<int>(g)));
  }
  auto page_count = PlanHostPages(pages->groups(), device_pages, config.host_kv_memory_bytes);
  if (!page_count.ok()) return Annotate(page_count.status(), "host_kv_memory_bytes");
  auto made = HostPages::Create(*copies, pages->groups(), *std::move(page_count));
  if (!made.ok()) return Annotate(made.status(), "host_kv_memory_bytes");
  host_pages = *std::move(made);
  return absl::OkStatus();
}

absl::Status Rank::MakeCopies() {
  copies = ops->MakeSideCopies();
  int64_t largest = 0;
  for (const StateGroup& group : pages->groups()) largest = std::max(largest, group.page_bytes);
  return Annotate(copies->Reserve(largest), "host_kv_memory_bytes");
}

absl::Status Rank::Connect(RankLinks* to) {
  ModelRunner::Options options;
  options.max_rows = config.max_rows;
  options.max_step_tokens = config.max_step_tokens;
  options.max_logit_tokens = config.max_rows;
  options.links = to;
  TROUPE_ASSIGN_OR_RETURN(runner,
                          ModelRunner::Create(model.get(), pages.get(), ops.get(), options));
  links = to;
  return absl::OkStatus();
}

void Rank::Disconnect() {
  runner.reset();
  links = nullptr;
}

v1::WorkerInfo Rank::Describe() const {
  v1::WorkerInfo info;
  std::filesystem::path folder = std::filesystem::path(config.model).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  info.set_model(folder.filename().string());
  info.set_identity(identity);
  if (cache_identity != identity) info.set_cache_identity(cache_identity);
  info.set_block_tokens(kBlockTokens);
  for (size_t g = 0; g < pages->groups().size(); ++g) {
    const StateGroup& group = pages->groups()[g];
    v1::KvGroup& announced = *info.add_groups();
    announced.set_name(group.name);
    announced.set_kind(KindOf(group.kind));
    announced.set_window_tokens(group.window_tokens);
    announced.set_page_bytes(group.page_bytes);
    announced.set_page_count(pages->page_count(static_cast<int>(g)));
    if (host_pages != nullptr) announced.set_host_page_count(host_pages->page_count(g));
  }
  info.set_max_rows(config.max_rows);
  info.set_max_step_tokens(config.max_step_tokens);
  info.set_max_context(config.max_context);
  info.set_heads_per_token(model->gated_heads());
  return info;
}

std::string ServingIdentity(const ModelIdentity& checkpoint, ComputeMode mode,
                            const std::optional<IntegerFormat>& quantize, DType kv_dtype) {
  return Sha256(absl::StrCat("troupe worker\n", checkpoint.Hex(), "\n",
                             mode == ComputeMode::kF32 ? "f32" : "bf16", "\nquantize ",
                             NameOf(quantize), "\nlayout ", kPageLayoutVersion, "\nblock ",
                             kBlockTokens, "\n", kv_dtype == DType::kE4M3 ? "kv e4m3\n" : ""));
}

absl::StatusOr<DType> ResolveKvDType(const std::string& name, ComputeMode mode) {
  if (name == "auto") return KvDType(mode);
  if (name == "fp8") return DType::kE4M3;
  return absl::InvalidArgumentError(
      absl::StrCat("kv_cache_dtype: found \"", name, "\", wanted auto or fp8"));
}

absl::Status CheckFp8Kv(absl::FunctionRef<bool(const KvUse&)> takes, const RankShard& shard,
                        absl::string_view device) {
  for (const StateGroup& group : ShardStateGroups(shard, {})) {
    for (const StateStream& stream : group.streams) {
      KvUse use = {.key_dim = stream.key_dim, .value_dim = stream.value_dim};
      const char* attention = "full or sliding";
      if (stream.branch == KvBranch::kMlaLatent) {
        use.reader = KvReader::kLatentAttention;
        attention = "latent";
      } else if (stream.branch != KvBranch::kSelf) {
        use.reader = KvReader::kNsa;
        attention = "sparse";
      }
      if (takes(use)) continue;
      return absl::UnimplementedError(absl::StrCat(
          "kv_cache_dtype: found fp8 for ", attention, " attention with keys of ", stream.key_dim,
          " and values of ", stream.value_dim, " in layer ", stream.layer, " on ", device,
          ", wanted full or sliding attention with sizes that are multiples of 16 up to 256, which "
          "is what this device reads in FP8; start with kv_cache_dtype auto"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<float> ResolveGateThreshold(std::optional<float> configured, const char* environment,
                                           float model_default) {
  float threshold = configured.value_or(model_default);
  absl::string_view source = "gate_threshold";
  std::string found = absl::StrCat(threshold);
  if (!configured.has_value() && environment != nullptr && *environment != '\0') {
    source = kThresholdVariable;
    found = environment;
    if (!absl::SimpleAtof(environment, &threshold)) threshold = -1;
  }
  if (threshold >= 0 && threshold <= 1) return threshold;  // refuses NaN
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": found \"", found, "\", wanted a number in [0, 1]; 0 skips no head"));
}

}  // namespace troupe
