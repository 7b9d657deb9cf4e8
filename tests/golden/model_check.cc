#include "tests/golden/model_check.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_util.h"
#include "kernels/device.h"
#include "model/checkpoint.h"
#include "model/json_reader.h"
#include "model/safetensors.h"
#include "sharding/layout_rules.h"
#include "worker/testing/replica_harness.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kChunkSeed = 20240607;
constexpr int kLongestChunk = 29;

// A golden tensor as float or int64_t, [outer][middle][inner] without gaps.
template <class T>
struct Values {
  std::vector<int64_t> shape;
  std::vector<T> values;

  const T* At(int64_t index) const {
    return values.data() + index * static_cast<int64_t>(values.size()) / shape[0];
  }
};

template <class T>
absl::StatusOr<Values<T>> Read(const SafetensorsFile& file, absl::string_view name,
                               StoredDType dtype, size_t dimensions) {
  for (const TensorView& view : file.tensors()) {
    if (view.name != name) continue;
    if (view.dtype != dtype || view.shape.size() != dimensions || view.elements() == 0) {
      return FieldError(file.path(), name,
                        absl::StrCat(DTypeName(view.dtype), " ", view.ShapeString()),
                        absl::StrCat(DTypeName(dtype), " values of ", dimensions, " dimensions"));
    }
    Values<T> result{{view.shape.begin(), view.shape.end()}, std::vector<T>(view.elements())};
    std::memcpy(result.values.data(), view.bytes.data(), view.bytes.size());
    return result;
  }
  return FieldError(file.path(), name, "nothing", "a golden tensor of that name");
}

struct Golden {
  Values<int64_t> input_ids;  // [P, T]
  Values<float> first;        // [P, F, V]
  Values<float> last;         // [P, L, V]
  Values<int64_t> greedy;     // [P, G]
  Values<float> margin;       // [P, G]

  int64_t prompts() const { return input_ids.shape[0]; }
  int64_t tokens() const { return input_ids.shape[1]; }
  int64_t greedy_tokens() const { return greedy.shape[1]; }

  // The golden logits at a position; null: there are none.
  const float* LogitsAt(int64_t prompt, int64_t position) const {
    const int64_t vocab = first.shape[2];
    if (position < first.shape[1]) return first.At(prompt) + position * vocab;
    const int64_t row = position - (tokens() - last.shape[1]);
    return row < 0 ? nullptr : last.At(prompt) + row * vocab;
  }
};

absl::StatusOr<Golden> ReadGolden(const std::string& folder, int64_t vocab) {
  TROUPE_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(folder + "/golden.safetensors"));
  Golden golden;
  TROUPE_ASSIGN_OR_RETURN(golden.input_ids,
                          Read<int64_t>(*file, "input_ids", StoredDType::kI64, 2));
  TROUPE_ASSIGN_OR_RETURN(golden.first, Read<float>(*file, "logits_first", StoredDType::kF32, 3));
  TROUPE_ASSIGN_OR_RETURN(golden.last, Read<float>(*file, "logits", StoredDType::kF32, 3));
  TROUPE_ASSIGN_OR_RETURN(golden.greedy, Read<int64_t>(*file, "greedy", StoredDType::kI64, 2));
  TROUPE_ASSIGN_OR_RETURN(golden.margin, Read<float>(*file, "margin", StoredDType::kF32, 2));
  const int64_t prompts = golden.prompts();
  if (golden.first.shape[0] != prompts || golden.last.shape[0] != prompts ||
      golden.greedy.shape[0] != prompts || golden.margin.shape != golden.greedy.shape ||
      golden.first.shape[2] != vocab || golden.last.shape[2] != vocab ||
      golden.first.shape[1] > golden.tokens() || golden.last.shape[1] > golden.tokens()) {
    return FieldError(file->path(), "shapes", "tensors that do not belong together",
                      absl::StrCat(prompts, " prompts of ", golden.tokens(), " tokens and ", vocab,
                                   " logits in each"));
  }
  for (const int64_t token : golden.input_ids.values) {
    if (token < 0 || token >= vocab) {
      return FieldError(file->path(), "input_ids", absl::StrCat(token),
                        absl::StrCat("tokens from 0 to ", vocab - 1));
    }
  }
  return golden;
}

// The folder as one that has only `config`, under the name that a loader looks for: links in a
// folder of its own, removed at the end.
class FolderWithConfig {
 public:
  static absl::StatusOr<FolderWithConfig> Make(const std::string& folder,
                                               absl::string_view config) {
    std::string made = (fs::temp_directory_path() / "troupe-golden-XXXXXX").string();
    if (mkdtemp(made.data()) == nullptr) return absl::ErrnoToStatus(errno, made);
    FolderWithConfig result(made);
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const std::string name = entry.path().filename().string();
      const bool is_config = std::find(std::begin(kModelConfigs), std::end(kModelConfigs), name) !=
                             std::end(kModelConfigs);
      if (is_config && name != config) continue;
      const fs::path link = fs::path(made) / (is_config ? "config.json" : name);
      fs::create_symlink(fs::absolute(entry.path()), link, error);
      if (error) break;
    }
    if (!error) return result;
    return absl::NotFoundError(absl::StrCat(folder, ": ", error.message()));
  }

  FolderWithConfig(FolderWithConfig&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  FolderWithConfig& operator=(FolderWithConfig&&) = delete;
  ~FolderWithConfig() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }

 private:
  explicit FolderWithConfig(std::string path) : path_(std::move(path)) {}

  std::string path_;
};

// A request's default, where the model gates heads.
GateRule DefaultGate(const ModelDescription& description) {
  for (const LayerDescription& layer : description.layers) {
    if (layer.attention.head_gate) return {layer.attention.head_gate->threshold, 0.0F};
  }
  return {0.0F, 0.0F};
}

// NaN, once met, stays.
float Worse(float error, const std::vector<float>& got, const float* want) {
  for (size_t i = 0; i < got.size(); ++i) {
    const float difference = std::abs(got[i] - want[i]);
    if (std::isnan(error) || std::isnan(difference)) return NAN;
    error = std::max(error, difference);
  }
  return error;
}

class Comparer {
 public:
  Comparer(ReplicaHarness* harness, const ModelDescription& model, const Golden* golden)
      : harness_(harness), golden_(golden), gate_(DefaultGate(model)) {}

  ModelComparison Compare(PromptFeed feed) {
    ModelComparison result;
    result.feed = feed;
    std::vector<uint32_t> next = FeedPrompts(feed, &result);
    ContinueGreedily(std::move(next), &result);
    for (int64_t p = 0; p < golden_->prompts(); ++p) harness_->Finish(static_cast<uint32_t>(p));
    return result;
  }

 private:
  int64_t ChunkOf(PromptFeed feed, int64_t left) {
    switch (feed) {
      case PromptFeed::kWhole:
        return left;
      case PromptFeed::kRagged:
        return std::min<int64_t>(left, 1 + static_cast<int64_t>(random_() % kLongestChunk));
      case PromptFeed::kByTokens:
        break;
    }
    return 1;
  }

  // Compares the logits on the way; the best token after each prompt.
  std::vector<uint32_t> FeedPrompts(PromptFeed feed, ModelComparison* result) {
    const int64_t prompts = golden_->prompts();
    const int64_t tokens = golden_->tokens();
    std::vector<int64_t> done(prompts, 0);
    std::vector<uint32_t> next(prompts, 0);
    while (*std::min_element(done.begin(), done.end()) < tokens) {
      std::vector<RunnerHarness::Row> rows;
      for (int64_t p = 0; p < prompts; ++p) {
        if (done[p] == tokens) continue;
        const int64_t count = ChunkOf(feed, tokens - done[p]);
        RunnerHarness::Row row{.slot = static_cast<uint32_t>(p), .gate = gate_};
        const int64_t* ids = golden_->input_ids.At(p) + done[p];
        row.tokens.assign(ids, ids + count);
        row.logits = static_cast<int>(count);
        rows.push_back(std::move(row));
      }
      const RunnerHarness::Logits logits = harness_->Step(rows);
      size_t index = 0;
      for (const RunnerHarness::Row& row : rows) {
        for (size_t i = 0; i < row.tokens.size(); ++i, ++index) {
          const float* want = golden_->LogitsAt(row.slot, done[row.slot]++);
          if (want != nullptr) result->error = Worse(result->error, logits[index], want);
        }
        next[row.slot] = RunnerHarness::Best(logits[index - 1]);
      }
    }
    return next;
  }

  // Every prompt's own best tokens, whatever golden says: one that differs shows in all that
  // follow.
  void ContinueGreedily(std::vector<uint32_t> next, ModelComparison* result) {
    const int64_t prompts = golden_->prompts();
    std::vector<bool> equal(prompts, true);
    for (int64_t g = 0; g < golden_->greedy_tokens(); ++g) {
      for (int64_t p = 0; p < prompts; ++p) {
        ++result->greedy_tokens;
        if (equal[p] && next[p] != golden_->greedy.At(p)[g]) {
          equal[p] = false;
          if (result->margin_at_miss == 0) result->margin_at_miss = golden_->margin.At(p)[g];
        }
        result->greedy_equal += equal[p] ? 1 : 0;
      }
      if (g + 1 == golden_->greedy_tokens()) break;
      std::vector<RunnerHarness::Row> rows;
      for (int64_t p = 0; p < prompts; ++p) {
        rows.push_back({.slot = static_cast<uint32_t>(p), .tokens = {next[p]}, .gate = gate_});
      }
      const RunnerHarness::Logits logits = harness_->Step(rows);
      for (int64_t p = 0; p < prompts; ++p) next[p] = RunnerHarness::Best(logits[p]);
    }
  }

  ReplicaHarness* harness_;
  const Golden* golden_;
  GateRule gate_;
  std::mt19937 random_{kChunkSeed};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> MakeDeviceOps(absl::string_view device, int threads) {
  if (device == "reference") return MakeReferenceOps();
  return MakeOps(device, {.threads = threads});
}

const char* PromptFeedName(PromptFeed feed) {
  switch (feed) {
    case PromptFeed::kWhole:
      return "in one step";
    case PromptFeed::kRagged:
      return "in ragged chunks";
    case PromptFeed::kByTokens:
      break;
  }
  return "token by token";
}

absl::StatusOr<std::vector<ModelComparison>> CompareModel(const std::string& folder,
                                                          absl::string_view config,
                                                          const CompareOptions& options) {
  TROUPE_ASSIGN_OR_RETURN(const FolderWithConfig linked, FolderWithConfig::Make(folder, config));
  TROUPE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(linked.path()));
  const ModelDescription& model = checkpoint.description();
  TROUPE_ASSIGN_OR_RETURN(const Golden golden, ReadGolden(folder, model.vocab_size));
  const int step_tokens = static_cast<int>(golden.prompts() * golden.tokens());
  RunnerHarness::Options runner = {
      .mode = ComputeMode::kF32,
      .slots = static_cast<int>(golden.prompts()),
      .max_context_tokens = static_cast<int>(golden.tokens() + golden.greedy_tokens()),
      .max_step_tokens = step_tokens,
      .max_logit_tokens = step_tokens};
  const auto make_ops = [&] {
    // Many ranks share the cores.
    return MakeDeviceOps(options.device, options.layout.world() > 1 ? 1 : 0);
  };
  TROUPE_ASSIGN_OR_RETURN(
      const std::unique_ptr<ReplicaHarness> harness,
      ReplicaHarness::Create(checkpoint, make_ops,
                             {.runner = runner,
                              .layout = options.layout,
                              .transport = options.gloo ? ReplicaHarness::Transport::kGloo
                                                        : ReplicaHarness::Transport::kMemory}));
  Comparer comparer(harness.get(), model, &golden);
  std::vector<ModelComparison> results;
  for (const PromptFeed feed : options.feeds) {
    results.push_back(comparer.Compare(feed));
    results.back().config = config;
  }
  return results;
}

absl::StatusOr<std::vector<Layout>> LayoutsOf(const std::string& folder, int max_ranks) {
  TROUPE_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  std::vector<Layout> layouts;
  for (int world = 1; world <= max_ranks; world *= 2) {
    for (int tp = 1; tp <= world; tp *= 2) {
      for (int dp = 1; tp * dp <= world; dp *= 2) {
        for (const bool expert_parallel : {false, true}) {
          const Layout layout = {tp, dp, world / tp / dp, expert_parallel};
          if (CheckLayout(config.description, layout).ok()) layouts.push_back(layout);
        }
      }
    }
  }
  return layouts;
}

}  // namespace troupe
