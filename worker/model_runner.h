// The forward pass: straight-line code over Ops that walks a model's layer descriptions. What a
// layer does is in worker/attention_layer.h and worker/ffn_layer.h.
//
// A rank of several runs its part of it (RankShard) with its links to the others. Ranks of a
// tensor-parallel group are given the same steps and hold the same residual stream: each adds its
// term of a sublayer's result, the first of them to the stream itself, and a sum over the group
// gives the new stream to all. A home without tokens joins with an empty step: experts on its ranks
// may be wanted by others. A stage that is not the last gives no logits.
//
// Thread model: one caller at a time, the one that owns the Ops.
// Ownership: borrows model, pages and Ops, which must outlive it; owns the activations, allocated
// once for `max_step_tokens`. Nothing is allocated in a step. What Forward returns stays valid
// until the next call. Invariants: a token's results do not depend on the other sequences of a
// step, nor on how its own sequence is cut into steps, bit for bit; with latent attention the cut
// may change their rounding (docs/adr/0006).
#ifndef TROUPE_WORKER_MODEL_RUNNER_H_
#define TROUPE_WORKER_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/ops.h"
#include "worker/kv_pages.h"
#include "worker/loaded_model.h"
#include "worker/rank_links.h"

namespace troupe {

// The rows of one step. Filled by its owner, reused from step to step without allocating.
class StepInput {
 public:
  StepInput(int max_rows, int max_tokens);

  void Clear();
  bool Fits(size_t more_tokens) const;

  // Adds tokens [start, start + tokens.size()) of the sequence in `slot`, whose pages were granted
  // (KvPages::CheckRow). Logits are wanted after its last `logits` tokens, 0 for none. CHECK-fails
  // when the row does not fit.
  void AddRow(uint32_t slot, int32_t start, absl::Span<const uint32_t> tokens, GateRule gate,
              int logits);

  // The token after the row's last one is to be drawn on the device, as the caller fills in. For
  // each row with logits, which then has one of them, or for none.
  SampleRule& Draw();

  // `part` becomes part `index` of `count` about equal ones of these tokens, in order; rows are cut
  // where that is `within_rows`. The index of the part's first row here; where the part is empty,
  // of the row that would follow.
  int CutTo(int index, int count, bool within_rows, StepInput& part) const;

  int rows() const { return static_cast<int>(slot_.size()); }
  int tokens() const { return static_cast<int>(token_.size()); }
  // Every row has one token, whose logits are wanted: steps of as many rows are alike.
  bool OnlyDecodes() const;
  BatchView batch() const;
  const uint32_t* token_ids() const { return token_.data(); }
  const GateRule* gate_rules() const { return gate_.data(); }
  bool draws() const { return !draw_.empty(); }
  const SampleRule* draw_rules() const { return draw_.data(); }
  // Ascending indices into the step's tokens; StepOutput::logits has a row for each, in order.
  absl::Span<const int32_t> logit_tokens() const { return logit_tokens_; }

 private:
  size_t max_rows_;
  size_t max_tokens_;
  std::vector<uint32_t> slot_;
  std::vector<int32_t> start_;
  std::vector<int32_t> first_;
  std::vector<GateRule> gate_;
  std::vector<uint32_t> token_;
  std::vector<int32_t> position_;
  std::vector<int32_t> token_row_;
  std::vector<int32_t> logit_tokens_;
  std::vector<SampleRule> draw_;
  int longest_ = 0;  // tokens of the longest row's sequence
};

struct StepOutput {
  // [logit_tokens, V] f32, on all ranks of the last stage; none where the step draws.
  Tensor logits;
  absl::Span<const int32_t> drawn;  // [logit_tokens] tokens where it does; or kDamagedLogits
  // Of this stage's layers and this home's tokens, the same on all ranks of a tensor-parallel
  // group.
  absl::Span<const int32_t> heads_closed;   // [R] (layer, token, head) that were skipped
  absl::Span<const int32_t> expert_tokens;  // [MoE layers of all stages, E], layer-major
};

// Sees a forward pass from inside, for tests and inspection. Calls come from within Forward, after
// what they show has been computed; tensors are valid during the call. MTP is layer
// mtp_layer_index().
class RunnerTap {
 public:
  virtual ~RunnerTap() = default;
  // The residual stream [T, d] after the embedding (layer -1) and after each layer.
  virtual void OnHidden(int /*layer*/, const Tensor& /*hidden*/) {}
  // Gates [T, H] before the rule.
  virtual void OnGates(int /*layer*/, const Tensor& /*gates*/) {}
  // [T, top_k] each, highest score first.
  virtual void OnExperts(int /*layer*/, absl::Span<const int32_t> /*experts*/,
                         absl::Span<const float> /*weights*/) {}
  // [T, G, selected_blocks], ascending, -1 pads.
  virtual void OnSelectedBlocks(int /*layer*/, absl::Span<const int32_t> /*blocks*/) {}
};

struct AttentionState;
class DeviceInput;
class ExpertExchange;
struct RunnerArena;

class ModelRunner {
 public:
  struct Options {
    int max_rows = 64;           // sequences in a step
    int max_step_tokens = 512;   // tokens in a step
    int max_logit_tokens = 64;   // of those, with logits
    bool early_exits = false;    // keep what ExitLogits needs
    bool mtp = false;            // ForwardMtp may be called; model and pages must have the module
    RankLinks* links = nullptr;  // to the model's other ranks; null: there are none. Not owned
  };

  // ResourceExhausted when the activations do not fit the device; FailedPrecondition when an option
  // asks for what the model or the pages lack.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const LoadedModel* model,
                                                             const KvPages* pages, Ops* ops,
                                                             const Options& options);
  ~ModelRunner();

  const Options& options() const { return options_; }
  int64_t activation_bytes() const;
  // Whether a step, once launched, needs the host for nothing: no stage and no home of experts
  // waits for what another says. Others may not draw on the device.
  bool unattended() const { return links_->dp->size() == 1 && links_->pp->size() == 1; }
  // OK, or what went wrong first on the device or between ranks.
  absl::Status status() const;

  // Runs the step. Its rows' pages were checked; sizes within the options are CHECKed. What comes
  // out means nothing when Ops::status() is an error.
  //
  // `micro_batches` > 1 cuts it (micro_batches.h): every rank of the replica gives the same number,
  // and neither taps, early exits nor ForwardMtp are used with the step.
  StepOutput Forward(const StepInput& input, int micro_batches = 1);

  // The same without waiting for the device: what comes out may be read once the device has come
  // here, and until the step after the next is launched.
  StepOutput Launch(const StepInput& input, int micro_batches = 1);

  // After Forward, with Options::early_exits: the logits of early head `exit` (an index into
  // early_exit_layers) for the same input. [logit_tokens, V] f32
  Tensor ExitLogits(int exit, const StepInput& input);

  // After Forward, at most once, with Options::mtp: runs the MTP layer at every position of the
  // same step, with the token that follows each. Row i predicts the token two after
  // logit_tokens[i]. [logit_tokens, V] f32
  Tensor ForwardMtp(const StepInput& input, absl::Span<const uint32_t> next_tokens);

  // Null: none. Not owned.
  void SetTap(RunnerTap* tap) { tap_ = tap; }

 private:
  ModelRunner(const LoadedModel* model, Ops* ops, const Options& options);

  // All rows at once: replayed where that can be.
  void RunWhole(const StepInput& input);
  // The same answer on all ranks.
  bool MayReplay(const StepInput& input) const;
  void RunParts(const StepInput& input, int micro_batches);
  // What the step handed out, on its way to the caller.
  StepOutput Output(const StepInput& input);
  // From tokens to logits and draws, without a copy or a wait where there is no tap and the step is
  // unattended.
  void RunStep(const DeviceInput& input);
  void ClearCounts();
  // From tokens, or the stage before, to the norms of logits, which go to rows from `first_logit`
  // on, or to the stage behind.
  void RunLayers(const DeviceInput& input, int64_t first_logit);
  void RunLayer(const LoadedLayer& layer, const AttentionState& state, const DeviceInput& input);
  // The residual stream as the first layer here reads it.
  void Begin(const DeviceInput& input, const Tensor& hidden);
  void NormLogitTokens(const DeviceTensor& norm, absl::Span<const int32_t> logit_tokens,
                       const Tensor& out);
  // Of the first `count` rows, in device memory.
  Tensor Logits(const Tensor& normed, size_t count);
  void Embed(const uint32_t* tokens, const Tensor& out);
  void TapHidden(int layer, const Tensor& hidden);

  const LoadedModel* model_;
  Ops* ops_;
  Options options_;
  RunnerTap* tap_ = nullptr;
  RankLinks lone_links_;  // unless the options have others
  RankLinks* links_;
  std::unique_ptr<RunnerArena> arena_;
  std::unique_ptr<Replays> replays_;  // of steps that only decode
  std::unique_ptr<ExpertExchange> exchange_;
  std::vector<AttentionState> state_;  // [layers that are here], then the MTP layer's
  std::vector<StepInput> parts_;       // [kMostMicroBatches], of a replica with stages
  bool cuts_rows_ = true;  // a sequence's results do not depend on how it is cut, bit for bit
};

}  // namespace troupe

#endif  // TROUPE_WORKER_MODEL_RUNNER_H_
