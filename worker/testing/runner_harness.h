// Drives a ModelRunner without a scheduler, for tests and benches: keeps sequences in slots, grants
// pages in a shuffled order, gives pages back behind windows.
//
// Every page is filled with NaNs when it is free, so that whatever reads a place that was not
// written, or was given back, shows in the logits.
//
// Thread model: one thread. Ownership: owns ops, weights, pages and runner. Errors are CHECKs.
#ifndef TROUPE_WORKER_TESTING_RUNNER_HARNESS_H_
#define TROUPE_WORKER_TESTING_RUNNER_HARNESS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/kv_pages.h"
#include "worker/loaded_model.h"
#include "worker/model_runner.h"

namespace troupe {

// `relative` under the source tree, which ctest names in TROUPE_SOURCE_DIR.
std::string SourcePath(const std::string& relative);

class RunnerHarness {
 public:
  struct Options {
    ComputeMode mode = ComputeMode::kF32;
    bool fp8_kv = false;         // keys and values; otherwise as `mode` says
    bool reference_ops = false;  // the naive oracle instead of the fast kernels
    std::optional<CpuIsa> isa;   // empty: the best of this CPU
    // Empty: TROUPE_TEST_DEVICE, else the CPU.
    std::string device;
    int threads = 0;  // 0: all cores
    int slots = 4;
    int max_context_tokens = 2048;
    int max_step_tokens = 512;
    int max_logit_tokens = 32;
    bool early_exits = false;
    bool mtp = false;
    uint32_t page_seed = 1;      // of the order in which pages are granted
    bool poison = true;          // NaNs in free pages
    int micro_batches = 1;       // of each step
    RankLinks* links = nullptr;  // of a rank of several
  };
  using Logits = std::vector<std::vector<float>>;

  struct Row {
    uint32_t slot = 0;
    std::vector<uint32_t> tokens;  // the next ones of the slot's sequence
    int logits = 1;
    GateRule gate{0.3F, 0.0F};  // the bundled model's default
  };

  // Over the bundled model.
  explicit RunnerHarness(const Options& options);
  // Over a model that lies on `ops`; mode, mtp and what chooses Ops are those of the two. Errors
  // are those of pages and runner.
  static absl::StatusOr<std::unique_ptr<RunnerHarness>> Create(std::unique_ptr<Ops> ops,
                                                               LoadedModel model,
                                                               const Options& options);

  ModelRunner& runner() { return *runner_; }
  KvPages& pages() { return *pages_; }
  const LoadedModel& model() const { return model_; }
  Ops& ops() { return *ops_; }
  const StepInput& last_input() const { return input_; }
  int64_t length(uint32_t slot) const { return sequences_[slot].length; }

  // Gives back what lies behind the rows' windows, grants what they need and runs one step.
  StepOutput Step(const std::vector<Row>& rows);

  // The rule of rows that Feed and Greedy make.
  void SetGate(GateRule gate) { gate_ = gate; }

  // Runs `tokens` in steps of at most `chunk`; logits after the last `logits` of the last step.
  Logits Feed(uint32_t slot, const std::vector<uint32_t>& tokens, int chunk, int logits = 1);

  // Greedy continuation: the best token of `logits`, then one token a step.
  std::vector<uint32_t> Greedy(uint32_t slot, const std::vector<float>& logits, int count);

  // `to` becomes a second sequence with the tokens of `from`: whole blocks are shared, the last,
  // partly filled one is copied; without `share` all are.
  void Fork(uint32_t from, uint32_t to, bool share = true);

  // Frees the slot's pages that no other slot shares.
  void Finish(uint32_t slot);

  static Logits Copy(const Tensor& tensor);
  static uint32_t Best(const std::vector<float>& logits);

 private:
  struct Sequence {
    int64_t length = 0;
    std::vector<std::vector<uint32_t>> blocks;  // [group][block], kUngrantedPage: none
  };

  RunnerHarness(std::unique_ptr<Ops> ops, LoadedModel model, const Options& options);
  absl::Status Prepare();

  void GrantBlocks(uint32_t slot, int64_t tokens);
  void GiveBackBehindWindows(uint32_t slot);
  uint32_t TakePage(int group);
  void DropPage(int group, uint32_t page);
  void Poison(int group, uint32_t page);

  Options options_;
  std::unique_ptr<Ops> ops_;
  LoadedModel model_;
  std::unique_ptr<KvPages> pages_;
  std::unique_ptr<ModelRunner> runner_;
  StepInput input_;
  GateRule gate_ = Row().gate;
  std::vector<std::vector<uint32_t>> free_;        // [group] pages
  std::vector<std::vector<uint32_t>> references_;  // [group][page]
  std::vector<Sequence> sequences_;
};

// Tokens that mean nothing but are the same in every run.
std::vector<uint32_t> RandomTokens(int count, uint32_t seed);

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_RUNNER_HARNESS_H_
