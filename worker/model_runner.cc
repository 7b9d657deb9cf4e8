#include "worker/model_runner.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"
#include "worker/attention_layer.h"
#include "worker/device_input.h"
#include "worker/expert_exchange.h"
#include "worker/ffn_layer.h"
#include "worker/micro_batches.h"
#include "worker/runner_arena.h"
#include "worker/tensor_parts.h"

namespace troupe {
namespace {

// Calls visit(first token, count, index of the first in `tokens`) for each run of neighbours.
template <class Visit>
void ForEachRun(absl::Span<const int32_t> tokens, const Visit& visit) {
  for (size_t begin = 0; begin < tokens.size();) {
    size_t end = begin + 1;
    while (end < tokens.size() && tokens[end] == tokens[end - 1] + 1) ++end;
    visit(tokens[begin], static_cast<int64_t>(end - begin), static_cast<int64_t>(begin));
    begin = end;
  }
}

// Of all rows, what lies between them included.
int64_t BytesOfRows(const Tensor& tensor) {
  return tensor.rows * tensor.stride * BytesOf(tensor.dtype);
}

// The residual stream x becomes x + f(x), normed before f, after it, or both, as `norms` says.
template <class Sublayer>
void RunSublayer(const LayerContext& context, const LoadedNorms& norms, const Sublayer& run) {
  const Tensor hidden = FirstRows(context.arena.hidden, context.tokens());
  const auto sum = [&](const Tensor& term) {
    context.links.tp->AllReduceSum(term.f32(), term.rows * term.stride);
  };
  SublayerIn in = {.x = hidden, .norm = {}};
  if (!norms.before.empty()) {
    // Other homes are sent rows that are normed.
    if (context.links.dp->size() == 1 && context.ops.NormsInputs(context.tokens())) {
      in.norm = {norms.before.f32(), context.rms_epsilon()};
    } else {
      in.x = FirstRows(context.arena.normed, context.tokens());
      context.ops.RmsNorm({hidden, norms.before.view, context.rms_epsilon(), in.x});
    }
  }
  if (norms.after.empty()) {
    run(in, SublayerOut{hidden, /*accumulate=*/context.links.tp->rank() == 0});
    return sum(hidden);
  }
  const Tensor change = FirstRows(context.arena.change, context.tokens());
  run(in, SublayerOut{change, /*accumulate=*/false});
  sum(change);
  context.ops.RmsNorm(
      {change, norms.after.view, context.rms_epsilon(), hidden, /*accumulate=*/true});
}

}  // namespace

ModelRunner::ModelRunner(const LoadedModel* model, Ops* ops, const Options& options)
    : model_(model),
      ops_(ops),
      options_(options),
      lone_links_(LoneLinks()),
      links_(options.links == nullptr ? &lone_links_ : options.links) {}

ModelRunner::~ModelRunner() = default;

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(const LoadedModel* model,
                                                                 const KvPages* pages, Ops* ops,
                                                                 const Options& options) {
  if (options.max_rows < 1 || options.max_step_tokens < 1 || options.max_logit_tokens < 1) {
    return absl::InvalidArgumentError(
        "runner: max_rows, max_step_tokens and max_logit_tokens must be at least 1");
  }
  if (options.mtp && !model->mtp.has_value()) {
    return absl::FailedPreconditionError(
        "runner: the MTP module was asked for but is not loaded; see LoadOptions::with_mtp");
  }
  if (options.early_exits && model->layers.size() != model->description.layers.size()) {
    return absl::FailedPreconditionError(
        "runner: early exits were asked for of a stage of layers, wanted one stage: the head that "
        "they share is on the last");
  }
  auto runner = std::unique_ptr<ModelRunner>(new ModelRunner(model, ops, options));
  auto arena = RunnerArena::Allocate(*model, options, pages->slots(), ops);
  if (!arena.ok()) return arena.status();
  runner->arena_ = *std::move(arena);
  runner->replays_ = ops->MakeReplays();
  auto exchange = MakeExpertExchange(*model, options.max_step_tokens, *runner->links_, ops);
  if (!exchange.ok()) return exchange.status();
  runner->exchange_ = *std::move(exchange);
  const auto add_state = [&](const LoadedLayer& layer) {
    runner->state_.push_back(LocateState(*pages, layer.index, layer.attention));
  };
  for (const LoadedLayer& layer : model->layers) add_state(layer);
  if (options.mtp) add_state(model->mtp->layer);
  for (const LayerDescription& layer : model->description.layers) {
    runner->cuts_rows_ = runner->cuts_rows_ && !layer.attention.mla.has_value();
  }
  if (runner->links_->pp->size() > 1) {
    runner->parts_.assign(kMostMicroBatches, StepInput(options.max_rows, options.max_step_tokens));
  }
  return runner;
}

int64_t ModelRunner::activation_bytes() const { return arena_->bytes + exchange_->bytes(); }

absl::Status ModelRunner::status() const {
  return ops_->status().ok() ? links_->status() : ops_->status();
}

StepOutput ModelRunner::Forward(const StepInput& input, int micro_batches) {
  const StepOutput output = Launch(input, micro_batches);
  ops_->Synchronize();
  return output;
}

StepOutput ModelRunner::Launch(const StepInput& input, int micro_batches) {
  CHECK(micro_batches == 1 ||
        (micro_batches <= static_cast<int>(parts_.size()) && !options_.mtp && tap_ == nullptr))
      << micro_batches;
  CHECK_LE(input.rows(), options_.max_rows);
  CHECK_LE(input.tokens(), options_.max_step_tokens);
  CHECK_LE(static_cast<int>(input.logit_tokens().size()), options_.max_logit_tokens);
  CHECK(unattended() || !input.draws());
  ops_->BeginStep();
  if (micro_batches > 1) {
    RunParts(input, micro_batches);
  } else {
    RunWhole(input);
  }
  return Output(input);
}

StepOutput ModelRunner::Output(const StepInput& input) {
  const auto rows = static_cast<size_t>(input.rows());
  const size_t counts = static_cast<size_t>(model_->moe_layers()) * model_->max_experts();
  const size_t logits = input.logit_tokens().size();
  const size_t max_rows = arena_->closed.size();
  StepOutput output;
  if (!input.draws() && model_->shard.last_stage) {
    output.logits = Fetched(*ops_, FirstRows(arena_->logits, static_cast<int64_t>(logits)));
  }
  // One copy, though some of it may not be wanted: what counts is how many there are.
  const absl::Span<const int32_t> results = Fetched(*ops_, arena_->results);
  output.heads_closed = results.subspan(0, rows);
  output.expert_tokens = results.subspan(max_rows, counts);
  if (input.draws()) {
    output.drawn = results.subspan(max_rows + arena_->expert_tokens.size(), logits);
  }
  return output;
}

bool ModelRunner::MayReplay(const StepInput& input) const {
  // Ranks with parts of different sizes would differ in when their memory grows, and with that in
  // what they keep.
  const bool even = model_->description.vocab_size % model_->shard.tensor.count == 0;
  return replays_->keeps() && unattended() && even && tap_ == nullptr && input.OnlyDecodes() &&
         links_->world->status().ok();
}

void ModelRunner::RunWhole(const StepInput& input) {
  DeviceInput staged(input, /*first_row=*/0, *ops_);
  if (!MayReplay(input)) return RunStep(staged);
  staged.WidenLongest();
  if (!replays_->Begin({.kind = input.draws() ? 1 : 0,
                        .tokens = input.tokens(),
                        .longest = staged.batch().longest})) {
    return links_->world->Replayed();
  }
  RunStep(staged);
  replays_->End();
  links_->world->Replayed();
}

void ModelRunner::RunParts(const StepInput& input, int micro_batches) {
  ClearCounts();
  int64_t logits = 0;
  for (int i = 0; i < micro_batches; ++i) {
    StepInput& part = parts_[i];
    const int first_row = input.CutTo(i, micro_batches, cuts_rows_, part);
    RunLayers(DeviceInput(part, first_row, *ops_), logits);
    logits += static_cast<int64_t>(part.logit_tokens().size());
  }
  if (model_->shard.last_stage) Logits(arena_->logit_normed, input.logit_tokens().size());
}

void ModelRunner::RunStep(const DeviceInput& input) {
  ClearCounts();
  RunLayers(input, /*first_logit=*/0);
  if (!model_->shard.last_stage) return;
  const Tensor logits = Logits(arena_->logit_normed, input.logit_tokens().size());
  if (input.draw_rules() == nullptr) return;
  auto* drawn = reinterpret_cast<uint32_t*>(arena_->drawn.data());
  ops_->Sample({logits, input.draw_rules(), drawn, arena_->last_tokens.data()});
}

void ModelRunner::ClearCounts() {
  const size_t counters = arena_->closed.size() + arena_->expert_tokens.size();
  ops_->Clear(arena_->results.data(), static_cast<int64_t>(counters * sizeof(int32_t)));
}

void ModelRunner::RunLayers(const DeviceInput& input, int64_t first_logit) {
  const Tensor hidden = FirstRows(arena_->hidden, input.tokens());
  Begin(input, hidden);
  size_t exit = 0;
  for (size_t i = 0; i < model_->layers.size(); ++i) {
    RunLayer(model_->layers[i], state_[i], input);
    const std::vector<int>& exits = model_->description.early_exit_layers;
    if (options_.early_exits && exit < exits.size() && exits[exit] == static_cast<int>(i)) {
      NormLogitTokens(model_->early_exit_norms[exit], input.logit_tokens(),
                      arena_->exit_normed[exit]);
      ++exit;
    }
  }
  if (!model_->shard.last_stage) {
    return links_->pp->Send(links_->pp->rank() + 1, hidden.data, BytesOfRows(hidden));
  }
  const auto count = static_cast<int64_t>(input.logit_tokens().size());
  NormLogitTokens(model_->final_norm, input.logit_tokens(),
                  Rows(arena_->logit_normed, first_logit, count));
}

void ModelRunner::Begin(const DeviceInput& input, const Tensor& hidden) {
  if (model_->shard.first_stage) {
    Embed(input.token_ids(), hidden);
  } else {
    links_->pp->Receive(links_->pp->rank() - 1, hidden.data, BytesOfRows(hidden));
  }
  TapHidden(model_->shard.first_layer - 1, hidden);
}

Tensor ModelRunner::ExitLogits(int exit, const StepInput& input) {
  CHECK(options_.early_exits);
  const Tensor logits =
      Fetched(*ops_, Logits(arena_->exit_normed.at(exit), input.logit_tokens().size()));
  ops_->Synchronize();
  return logits;
}

Tensor ModelRunner::ForwardMtp(const StepInput& input, absl::Span<const uint32_t> next_tokens) {
  CHECK(options_.mtp);
  CHECK_EQ(static_cast<int>(next_tokens.size()), input.tokens());
  const LoadedMtp& mtp = *model_->mtp;
  const int64_t size = model_->description.hidden_size;
  const float eps = model_->description.rms_epsilon;
  const Tensor hidden = FirstRows(arena_->hidden, input.tokens());
  const Tensor joined = FirstRows(arena_->mtp_joined, input.tokens());
  const Tensor embedding = FirstRows(arena_->normed, input.tokens());
  const DeviceInput staged(input, /*first_row=*/0, *ops_);
  Embed(Staged(*ops_, next_tokens.data(), input.tokens()), embedding);
  ops_->RmsNorm({embedding, mtp.embedding_norm.view, eps, Columns(joined, 0, size)});
  ops_->RmsNorm({hidden, mtp.hidden_norm.view, eps, Columns(joined, size, size)});
  ops_->Linear({joined, mtp.input.get(), hidden});
  RunLayer(mtp.layer, state_.back(), staged);
  NormLogitTokens(mtp.head_norm, input.logit_tokens(), arena_->logit_normed);
  const Tensor logits = Fetched(*ops_, Logits(arena_->logit_normed, input.logit_tokens().size()));
  ops_->Synchronize();
  return logits;
}

void ModelRunner::RunLayer(const LoadedLayer& layer, const AttentionState& state,
                           const DeviceInput& input) {
  const LayerContext context{*model_, *ops_, *arena_, tap_, input, layer, *links_, *exchange_};
  RunSublayer(context, layer.attention_norms, [&](const SublayerIn& in, const SublayerOut& out) {
    RunAttention(context, state, in, out);
  });
  RunSublayer(context, layer.ffn_norms,
              [&](const SublayerIn& in, const SublayerOut& out) { RunFfn(context, in, out); });
  TapHidden(layer.index, FirstRows(arena_->hidden, input.tokens()));
}

void ModelRunner::NormLogitTokens(const DeviceTensor& norm, absl::Span<const int32_t> logit_tokens,
                                  const Tensor& out) {
  ForEachRun(logit_tokens, [&](int64_t token, int64_t count, int64_t index) {
    ops_->RmsNorm({Rows(arena_->hidden, token, count), norm.view, model_->description.rms_epsilon,
                   Rows(out, index, count)});
  });
}

Tensor ModelRunner::Logits(const Tensor& normed, size_t count) {
  const auto rows = static_cast<int64_t>(count);
  const Tensor logits = FirstRows(arena_->logits, rows);
  // Each rank has the logits of its part of the vocabulary and zeros, and the sum has all.
  const Slice& part = model_->shard.tensor;
  const Tensor own = Columns(logits, part.Begin(logits.cols), model_->lm_head->outputs());
  if (own.cols < logits.cols) ops_->Clear(logits.data, BytesOfRows(logits));
  if (rows > 0) ops_->Linear({FirstRows(normed, rows), model_->lm_head.get(), own});
  links_->tp->AllReduceSum(logits.f32(), rows * logits.stride);
  return logits;
}

void ModelRunner::Embed(const uint32_t* tokens, const Tensor& out) {
  ops_->Embed({tokens, model_->embedding.view, out, model_->description.embedding_scale,
               arena_->last_tokens.data()});
}

void ModelRunner::TapHidden(int layer, const Tensor& hidden) {
  if (tap_ == nullptr) return;
  const Tensor fetched = Fetched(*ops_, hidden);
  ops_->Synchronize();
  tap_->OnHidden(layer, fetched);
}

}  // namespace troupe
