// One rank's device and all that lies on it: operations, weights, pages, the forward pass.
//
// Thread model: made by any thread, then used by one at a time. Ownership: owns all. Errors are
// those of the checkpoint, of memory (with the arithmetic) and of options out of range.
#ifndef TROUPE_WORKER_RANK_H_
#define TROUPE_WORKER_RANK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"
#include "model/checkpoint.h"
#include "sharding/shard_map.h"
#include "sharding/weight_ledger.h"
#include "troupe/v1/worker.pb.h"
#include "worker/calibration.h"
#include "worker/checkpoint_reader.h"
#include "worker/host_pages.h"
#include "worker/kv_pages.h"
#include "worker/loaded_model.h"
#include "worker/model_runner.h"
#include "worker/peer_checkpoint.h"
#include "worker/rank_links.h"

namespace troupe {

// What a rank finds there, where another of the same process and checkpoint serves.
struct RankGiven {
  std::optional<ModelIdentity> checkpoint;
  bool pages = false;    // of the same layers and heads: TakePages will bring them
  bool digests = false;  // are wanted, of the weights
  // Loaded alike from the same checkpoint: what it holds is shared. Null: nothing.
  std::shared_ptr<const LoadedModel> keep;
  PeerPlan peers;  // where weights come from; without peers: the folder
};

struct Rank {
  struct Config {
    std::string model;           // the checkpoint's folder
    bool dummy_weights = false;  // random ones, of what its config.json says
    ComputeMode mode = ComputeMode::kBf16;
    std::string device = "cpu";           // see MakeOps
    std::string quantize = "none";        // plain weights, while loading; see ParseIntegerFormat
    std::string kv_cache_dtype = "auto";  // of keys and values: as `mode` says, or fp8
    // Puts something around what computes, for tests; null: nothing.
    std::function<std::unique_ptr<Ops>(std::unique_ptr<Ops>)> wrap_ops;
    // Observes the model's inputs; null: nobody does. Must outlive the rank.
    Calibration* calibration = nullptr;
    int threads = 0;  // that compute; 0: the cores that this process may use
    int64_t kv_memory_bytes = int64_t{1} << 30;
    int64_t host_kv_memory_bytes = 0;  // for pages that make room on the device; 0: none
    int max_rows = 64;                 // sequences that live at once
    int max_step_tokens = 512;         // tokens of one step
    bool load_from_peers = true;       // what they have; else from the folder, if it has weights
    int max_context = 0;  // tokens a sequence may reach; 0: what the model was made for
  };

  // What is being done ("identity", "weights") and how far; from several threads, one at a time.
  using Progress =
      std::function<void(absl::string_view what, int64_t bytes_done, int64_t bytes_total)>;

  // Which part of the model it is to be.
  struct Part {
    ShardMap map;
    int rank = 0;

    bool operator==(const Part&) const = default;
  };

  // `part`: empty for the whole model. A part has no forward pass before Connect.
  static absl::StatusOr<std::unique_ptr<Rank>> Open(const Config& config,
                                                    const std::optional<Part>& part,
                                                    const Progress& progress, RankGiven given = {});

  // Takes the other's pages with all that lies in them, and its host pages. REQUIRES: no forward
  // pass on either; both keep the same state.
  absl::Status TakePages(Rank& from);
  // New pages and host pages, with nothing in them.
  absl::Status MakePages();

  // Makes the forward pass, with links to the part's other ranks; null: there are none. They must
  // outlive it: Disconnect ends it.
  absl::Status Connect(RankLinks* links);
  void Disconnect();

  // Digests of all weights that are here, where RankGiven asked for them.
  std::vector<WeightPiece> WeightDigests() const;

  // What the coordinator is told, but for name and addresses.
  v1::WorkerInfo Describe() const;

  Config config;  // max_context resolved
  ModelIdentity checkpoint;
  std::shared_ptr<const Checkpoint> files;  // of the folder; null: it has none, or they are random
  std::string identity;                     // 32 bytes, see ServingIdentity
  // Under which its blocks lie in the cache service: identity, unless it holds a part of each
  // token's state.
  std::string cache_identity;
  float gate_threshold = 0;  // the model's default
  // Destroyed after everything that lies on it.
  std::unique_ptr<Ops> ops;
  std::shared_ptr<const LoadedModel> model;
  WeightBytes read;  // where RankGiven asked for digests
  std::unique_ptr<KvPages> pages;
  std::unique_ptr<SideCopies> copies;
  std::unique_ptr<HostPages> host_pages;  // null: none
  RankLinks* links = nullptr;             // of the runner, not owned
  std::unique_ptr<ModelRunner> runner;

 private:
  absl::Status MakePagesOf(const RankShard& shard);
  absl::Status MakeCopies();
};

// The key of compatibility between workers and of cached blocks: SHA-256 over the checkpoint's
// identity, the compute dtype, how weights are quantised, the dtype of keys and values, the version
// of the pages' layout and the tokens of a block.
std::string ServingIdentity(const ModelIdentity& checkpoint, ComputeMode mode,
                            const std::optional<IntegerFormat>& quantize, DType kv_dtype);

// What Config::kv_cache_dtype says. InvalidArgument where it is neither auto nor fp8.
absl::StatusOr<DType> ResolveKvDType(const std::string& name, ComputeMode mode);

// Unimplemented, naming the layer and what to do instead, where the device does not take keys and
// values in FP8 as one of the shard's layers uses them; see Ops::TakesE4M3.
absl::Status CheckFp8Kv(absl::FunctionRef<bool(const KvUse&)> takes, const RankShard& shard,
                        absl::string_view device);

// The threshold under which attention heads are skipped where a request asks for nothing else:
// `configured`, else `environment` (the text of DYNAMIC_ATTENTION_THRESHOLD; null or empty: not
// set), else `model_default`. InvalidArgument unless it is a number in [0, 1].
absl::StatusOr<float> ResolveGateThreshold(std::optional<float> configured, const char* environment,
                                           float model_default);

}  // namespace troupe

#endif  // TROUPE_WORKER_RANK_H_
