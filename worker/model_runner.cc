#include "worker/model_runner.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "base/check.h"
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

}  // namespace

ModelRunner::ModelRunner(const LoadedModel* model, KvPages* pages, Ops* ops, const Options& options)
    : model_(model), pages_(pages), ops_(ops), options_(options) {}

ModelRunner::~ModelRunner() = default;

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(const LoadedModel* model,
                                                                 KvPages* pages, Ops* ops,
                                                                 const Options& options) {
  if (options.max_rows < 1 || options.max_step_tokens < 1 || options.max_logit_tokens < 1) {
    return absl::InvalidArgumentError(
        "runner: max_rows, max_step_tokens and max_logit_tokens must be at least 1");
  }
  if (options.mtp && !model->mtp.has_value()) {
    return absl::FailedPreconditionError(
        "runner: the MTP module was asked for but is not loaded; see LoadOptions::with_mtp");
  }
  auto runner = std::unique_ptr<ModelRunner>(new ModelRunner(model, pages, ops, options));
  auto arena = RunnerArena::Allocate(*model, options, ops);
  if (!arena.ok()) return arena.status();
  runner->arena_ = *std::move(arena);
  for (const LoadedLayer& layer : model->layers) runner->AddState(layer);
  if (options.mtp) runner->AddState(model->mtp->layer);
  return runner;
}

void ModelRunner::AddState(const LoadedLayer& layer) {
  const int index = static_cast<int>(state_.size());
  LayerState state;
  for (const LoadedKv& kv : layer.attention.kv) {
    state.kv.push_back(pages_->Locate(index, kv.branch));
  }
  if (layer.attention.nsa.has_value()) {
    state.compressed = pages_->Locate(index, KvBranch::kNsaCompressed);
  }
  state_.push_back(std::move(state));
}

int64_t ModelRunner::activation_bytes() const { return arena_->bytes; }

StepOutput ModelRunner::Forward(const StepInput& input) {
  CHECK_LE(input.rows(), options_.max_rows);
  CHECK_LE(input.tokens(), options_.max_step_tokens);
  CHECK_LE(static_cast<int>(input.logit_tokens().size()), options_.max_logit_tokens);
  std::fill(arena_->closed.begin(), arena_->closed.end(), 0);
  std::fill(arena_->expert_tokens.begin(), arena_->expert_tokens.end(), 0);

  StepOutput output;
  if (input.tokens() > 0) {
    const Tensor hidden = FirstRows(arena_->hidden, input.tokens());
    ops_->Embed({input.token_ids(), model_->embedding.view, hidden});
    TapHidden(-1, hidden);
    size_t exit = 0;
    for (size_t i = 0; i < model_->layers.size(); ++i) {
      RunLayer(static_cast<int>(i), model_->layers[i], input);
      const std::vector<int>& exits = model_->description.early_exit_layers;
      if (options_.early_exits && exit < exits.size() && exits[exit] == static_cast<int>(i)) {
        NormLogitTokens(model_->early_exit_norms[exit], input, arena_->exit_normed[exit]);
        ++exit;
      }
    }
    NormLogitTokens(model_->final_norm, input, arena_->logit_normed);
    output.logits = Logits(arena_->logit_normed, input);
  }
  output.heads_closed = arena_->closed.subspan(0, input.rows());
  output.expert_tokens = arena_->expert_tokens.subspan(
      0, static_cast<size_t>(model_->moe_layers()) * model_->max_experts());
  return output;
}

Tensor ModelRunner::ExitLogits(int exit, const StepInput& input) {
  CHECK(options_.early_exits);
  return Logits(arena_->exit_normed.at(exit), input);
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
  ops_->Embed({next_tokens.data(), model_->embedding.view, embedding});
  ops_->RmsNorm({embedding, mtp.embedding_norm.view, eps, Columns(joined, 0, size)});
  ops_->RmsNorm({hidden, mtp.hidden_norm.view, eps, Columns(joined, size, size)});
  ops_->Linear({joined, mtp.input.get(), hidden});
  RunLayer(model_->description.mtp_layer_index(), mtp.layer, input);
  NormLogitTokens(mtp.head_norm, input, arena_->logit_normed);
  return Logits(arena_->logit_normed, input);
}

void ModelRunner::RunLayer(int index, const LoadedLayer& layer, const StepInput& input) {
  const float eps = model_->description.rms_epsilon;
  const Tensor hidden = FirstRows(arena_->hidden, input.tokens());
  const Tensor normed = FirstRows(arena_->normed, input.tokens());
  ops_->RmsNorm({hidden, layer.attention_norm.view, eps, normed});
  RunAttention(index, layer, input);
  ops_->RmsNorm({hidden, layer.ffn_norm.view, eps, normed});
  if (const auto* moe = std::get_if<LoadedMoe>(&layer.ffn)) {
    RunExperts(index, std::get<MoeFfn>(layer.description.ffn), *moe, input.tokens());
  } else {
    RunDense(std::get<LoadedSwiglu>(layer.ffn), input.tokens());
  }
  TapHidden(index, hidden);
}

void ModelRunner::RunAttention(int index, const LoadedLayer& layer, const StepInput& input) {
  const AttentionDescription& description = layer.description.attention;
  const LoadedAttention& attention = layer.attention;
  const int64_t tokens = input.tokens();
  const Tensor projected =
      Columns(FirstRows(arena_->projected, tokens), 0, attention.in->outputs());
  ops_->Linear({FirstRows(arena_->normed, tokens), attention.in.get(), projected});

  const Tensor q = Columns(projected, 0, description.query_size());
  NormAndRotate(q, description.heads, attention.q_norm, layer, input);
  WriteKeysAndValues(index, layer, projected, input);
  ComputeGates(index, layer, projected, input);

  const Tensor attended =
      Columns(FirstRows(arena_->attended, tokens), 0, description.attended_size());
  if (attention.nsa.has_value()) {
    AttendSparse(index, layer, q, attended, input);
  } else {
    Attend(layer, q, state_[index].kv[0], GateMix(layer, 0), attended, input);
  }
  ops_->Linear(
      {attended, attention.out.get(), FirstRows(arena_->hidden, tokens), /*accumulate=*/true});
}

void ModelRunner::NormAndRotate(const Tensor& x, int heads, const DeviceTensor& norm,
                                const LoadedLayer& layer, const StepInput& input) {
  const DeviceTensor& inverse_frequency = layer.attention.inverse_frequency;
  if (norm.empty() && inverse_frequency.empty()) return;
  HeadNormRopeParams params;
  params.x = x;
  params.heads = heads;
  params.head_dim = layer.description.attention.head_dim;
  params.norm_weight = norm.empty() ? nullptr : norm.f32();
  params.eps = model_->description.rms_epsilon;
  params.inverse_frequency = inverse_frequency.empty() ? nullptr : inverse_frequency.f32();
  params.position = input.batch().position;
  ops_->HeadNormRope(params);
}

void ModelRunner::WriteKeysAndValues(int index, const LoadedLayer& layer, const Tensor& projected,
                                     const StepInput& input) {
  const AttentionDescription& description = layer.description.attention;
  const LayerState& state = state_[index];
  for (size_t b = 0; b < layer.attention.kv.size(); ++b) {
    const LoadedKv& kv = layer.attention.kv[b];
    const Tensor k = Columns(projected, kv.k_column, description.key_size());
    const Tensor v = Columns(projected, kv.v_column, description.value_size());
    NormAndRotate(k, description.kv_heads, kv.k_norm, layer, input);
    ops_->KvWrite({input.batch(), k, v, state.kv[b].k, state.kv[b].v, state.kv[b].tables});
  }
  if (!layer.attention.nsa.has_value()) return;

  const LoadedNsa& nsa = *layer.attention.nsa;
  const KvLocation& raw = state.kv[kNsaRawIndex];
  NsaCompressParams params;
  params.batch = input.batch();
  params.sizes = nsa.sizes;
  params.raw_k = raw.k;
  params.raw_v = raw.v;
  params.raw_tables = raw.tables;
  params.phi_k = nsa.phi_k.view();
  params.phi_v = nsa.phi_v.view();
  params.k_norm = nsa.compressed_k_norm.f32();
  params.eps = model_->description.rms_epsilon;
  params.k = state.compressed.k;
  params.v = state.compressed.v;
  params.tables = state.compressed.tables;
  ops_->NsaCompress(params);
}

void ModelRunner::ComputeGates(int index, const LoadedLayer& layer, const Tensor& projected,
                               const StepInput& input) {
  const AttentionDescription& description = layer.description.attention;
  const LoadedAttention& attention = layer.attention;
  if (attention.head_gate_up == nullptr) return;
  const int64_t tokens = input.tokens();
  const int64_t inner = attention.head_gate_up->inputs();
  const Tensor gate_inner = Columns(FirstRows(arena_->gate_inner, tokens), 0, inner);
  const Tensor gate_logits = Columns(FirstRows(arena_->gate_logits, tokens), 0, description.heads);
  ops_->Swiglu({Columns(projected, attention.head_gate_column, inner), gate_inner});
  ops_->Linear({gate_inner, attention.head_gate_up.get(), gate_logits});

  HeadGateParams params;
  params.batch = input.batch();
  params.heads = description.heads;
  params.gate_logits = gate_logits;
  if (attention.nsa.has_value()) {
    params.branches = kNsaBranches;
    params.branch_logits = Columns(projected, attention.nsa->branch_gate_column,
                                   static_cast<int64_t>(description.heads) * kNsaBranches);
  }
  params.rule = input.gate_rules();
  params.gates = Columns(FirstRows(arena_->gates, tokens), 0, description.heads);
  params.factors = Columns(FirstRows(arena_->factors, tokens), 0,
                           static_cast<int64_t>(description.heads) * std::max(params.branches, 1));
  params.closed = arena_->closed.data();
  ops_->HeadGate(params);
  if (tap_ != nullptr) {
    ops_->Synchronize();
    tap_->OnGates(index, params.gates);
  }
}

HeadMix ModelRunner::GateMix(const LoadedLayer& layer, int branch) const {
  HeadMix mix;
  if (layer.attention.head_gate_up == nullptr) {
    mix.factor = arena_->one;
    return mix;
  }
  const int branches = layer.attention.nsa.has_value() ? kNsaBranches : 1;
  mix.factor = arena_->factors.f32() + branch;
  mix.token_stride = arena_->factors.stride;
  mix.head_stride = branches;
  mix.accumulate = branch > 0;
  return mix;
}

void ModelRunner::Attend(const LoadedLayer& layer, const Tensor& q, const KvLocation& kv,
                         const HeadMix& mix, const Tensor& out, const StepInput& input) {
  const AttentionDescription& description = layer.description.attention;
  PagedAttentionParams params;
  params.batch = input.batch();
  params.heads = description.heads;
  params.window = description.kind == AttentionKind::kFull ? 0 : description.window_tokens;
  params.scale = description.score_scale;
  params.q = q;
  params.k = kv.k;
  params.v = kv.v;
  params.tables = kv.tables;
  params.mix = mix;
  params.out = out;
  ops_->PagedAttention(params);
}

void ModelRunner::AttendSparse(int index, const LoadedLayer& layer, const Tensor& q,
                               const Tensor& out, const StepInput& input) {
  const AttentionDescription& description = layer.description.attention;
  const NsaSizes& sizes = layer.attention.nsa->sizes;
  const LayerState& state = state_[index];
  NsaSelectParams select;
  select.batch = input.batch();
  select.sizes = sizes;
  select.heads = description.heads;
  select.scale = description.score_scale;
  select.q = q;
  select.k = state.compressed.k;
  select.v = state.compressed.v;
  select.tables = state.compressed.tables;
  select.mix = GateMix(layer, 0);
  select.out = out;
  select.selected = arena_->selected.data();
  ops_->NsaSelect(select);
  if (tap_ != nullptr) {
    ops_->Synchronize();
    tap_->OnSelectedBlocks(
        index, arena_->selected.subspan(0, static_cast<size_t>(input.tokens()) *
                                               description.kv_heads * sizes.selected_blocks));
  }

  const KvLocation& selected = state.kv[kNsaSelectedIndex];
  NsaAttentionParams attend;
  attend.batch = input.batch();
  attend.heads = description.heads;
  attend.selected_blocks = sizes.selected_blocks;
  attend.scale = select.scale;
  attend.q = q;
  attend.k = selected.k;
  attend.v = selected.v;
  attend.tables = selected.tables;
  attend.selected = select.selected;
  attend.mix = GateMix(layer, 1);
  attend.out = out;
  ops_->NsaAttention(attend);

  Attend(layer, q, state.kv[kNsaWindowIndex], GateMix(layer, 2), out, input);
}

void ModelRunner::RunDense(const LoadedSwiglu& ffn, int tokens) {
  const Tensor inner = Columns(FirstRows(arena_->ffn_inner, tokens), 0, ffn.gate_up->outputs());
  const Tensor activated = Columns(FirstRows(arena_->ffn_activated, tokens), 0, ffn.down->inputs());
  ops_->Linear({FirstRows(arena_->normed, tokens), ffn.gate_up.get(), inner});
  ops_->Swiglu({inner, activated});
  ops_->Linear({activated, ffn.down.get(), FirstRows(arena_->hidden, tokens), /*accumulate=*/true});
}

void ModelRunner::RunExperts(int index, const MoeFfn& description, const LoadedMoe& moe,
                             int tokens) {
  const Tensor normed = FirstRows(arena_->normed, tokens);
  const Tensor logits = Columns(FirstRows(arena_->router_logits, tokens), 0, description.experts);
  ops_->Linear({normed, moe.router.get(), logits});

  MoeRouteParams route;
  route.logits = logits;
  route.bias = moe.correction_bias.f32();
  route.top_k = description.experts_per_token;
  route.normalize = description.router.normalise_weights;
  route.scale = description.router.weight_scale;
  route.experts = arena_->chosen.data();
  route.weights = arena_->expert_weights.data();
  route.load =
      arena_->expert_tokens.data() + static_cast<ptrdiff_t>(moe.index) * model_->max_experts();
  ops_->MoeRoute(route);
  if (tap_ != nullptr) {
    ops_->Synchronize();
    const size_t count = static_cast<size_t>(tokens) * description.experts_per_token;
    tap_->OnExperts(index, arena_->chosen.subspan(0, count),
                    arena_->expert_weights.subspan(0, count));
  }

  MoeExpertsParams params;
  params.x = normed;
  params.expert_count = description.experts;
  params.experts = moe.experts.data();
  params.shared = moe.shared.has_value() ? &*moe.shared : nullptr;
  params.top_k = description.experts_per_token;
  params.chosen = route.experts;
  params.weights = route.weights;
  params.out = FirstRows(arena_->hidden, tokens);
  ops_->MoeExperts(params);
}

void ModelRunner::NormLogitTokens(const DeviceTensor& norm, const StepInput& input,
                                  const Tensor& out) {
  ForEachRun(input.logit_tokens(), [&](int64_t token, int64_t count, int64_t index) {
    ops_->RmsNorm({Rows(arena_->hidden, token, count), norm.view, model_->description.rms_epsilon,
                   Rows(out, index, count)});
  });
}

Tensor ModelRunner::Logits(const Tensor& normed, const StepInput& input) {
  const auto count = static_cast<int64_t>(input.logit_tokens().size());
  const Tensor logits = FirstRows(arena_->logits, count);
  if (count > 0) ops_->Linear({FirstRows(normed, count), model_->lm_head.get(), logits});
  ops_->Synchronize();
  return logits;
}

void ModelRunner::TapHidden(int layer, const Tensor& hidden) {
  if (tap_ == nullptr) return;
  ops_->Synchronize();
  tap_->OnHidden(layer, hidden);
}

}  // namespace troupe
