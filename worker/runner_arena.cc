#include "worker/runner_arena.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace troupe {
namespace {

// Hands out aligned pieces of one allocation; with a null base it only adds up their sizes.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  Tensor Matrix(int64_t rows, int64_t cols) {
    // Rows start aligned too, as vector loads like it.
    const int64_t stride = RoundUp(cols, kAlignment / BytesOf(DType::kF32));
    return {Take(rows * stride * BytesOf(DType::kF32)), DType::kF32, rows, cols, stride};
  }

  template <class T>
  absl::Span<T> Array(int64_t count) {
    return absl::MakeSpan(static_cast<T*>(Take(count * sizeof(T))), count);
  }

  int64_t bytes() const { return used_; }

 private:
  static constexpr int64_t kAlignment = 64;

  static int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

  void* Take(int64_t bytes) {
    const int64_t offset = std::exchange(used_, used_ + RoundUp(bytes, kAlignment));
    return base_ == nullptr ? nullptr : base_ + offset;
  }

  std::byte* base_;
  int64_t used_ = 0;
};

// The widest of every kind of activation over all layers.
struct Widths {
  int64_t projected = 0;
  int64_t mla_queries = 0;
  int64_t gate_inner = 0;
  int64_t heads = 0;
  int64_t factors = 0;
  int64_t attended = 0;
  int64_t dense = 0;
  int64_t experts = 0;
  int64_t top_k = 0;
  int64_t selected = 0;
  bool norms_after = false;

  void Include(const LoadedLayer& layer) {
    const AttentionDescription& description = layer.description.attention;
    const LoadedAttention& attention = layer.attention;
    norms_after = norms_after || layer.description.norm_place != NormPlace::kBefore;
    projected = std::max(projected, attention.in->outputs());
    if (attention.mla.has_value() && attention.mla->q_up != nullptr) {
      mla_queries = std::max(mla_queries, attention.mla->q_up->outputs());
    }
    attended = std::max<int64_t>(attended, description.attended_size());
    if (attention.head_gate_up != nullptr) {
      const int64_t gated = attention.head_gate_up->outputs();
      heads = std::max(heads, gated);
      factors = std::max(factors, gated * (attention.nsa.has_value() ? kNsaBranches : 1));
      gate_inner = std::max(gate_inner, attention.head_gate_up->inputs());
    }
    if (attention.nsa.has_value()) {
      selected =
          std::max<int64_t>(selected, description.kv_heads * attention.nsa->sizes.selected_blocks);
    }
    if (const auto* moe = std::get_if<MoeFfn>(&layer.description.ffn)) {
      experts = std::max<int64_t>(experts, moe->experts);
      top_k = std::max<int64_t>(top_k, moe->experts_per_token);
    } else {
      dense = std::max(dense, std::get<LoadedSwiglu>(layer.ffn).down->inputs());
    }
  }
};

void Carve(const LoadedModel& model, const ModelRunner::Options& options, int slots, Carver& carver,
           RunnerArena& arena) {
  Widths widths;
  for (const LoadedLayer& layer : model.layers) widths.Include(layer);
  if (options.mtp) widths.Include(model.mtp->layer);
  const int64_t tokens = options.max_step_tokens;
  const int64_t size = model.description.hidden_size;
  arena.hidden = carver.Matrix(tokens, size);
  arena.normed = carver.Matrix(tokens, size);
  if (widths.norms_after) arena.change = carver.Matrix(tokens, size);
  arena.projected = carver.Matrix(tokens, widths.projected);
  arena.mla_queries = carver.Matrix(tokens, widths.mla_queries);
  arena.gate_inner = carver.Matrix(tokens, widths.gate_inner);
  arena.gate_logits = carver.Matrix(tokens, widths.heads);
  arena.gates = carver.Matrix(tokens, widths.heads);
  arena.factors = carver.Matrix(tokens, widths.factors);
  arena.attended = carver.Matrix(tokens, widths.attended);
  arena.ffn_inner = carver.Matrix(tokens, 2 * widths.dense);
  arena.ffn_activated = carver.Matrix(tokens, widths.dense);
  arena.router_logits = carver.Matrix(tokens, widths.experts);
  if (options.mtp) arena.mtp_joined = carver.Matrix(tokens, 2 * size);
  arena.logit_normed = carver.Matrix(options.max_logit_tokens, size);
  arena.logits = carver.Matrix(options.max_logit_tokens, model.description.vocab_size);
  arena.exit_normed.clear();
  if (options.early_exits) {
    for (size_t i = 0; i < model.early_exit_norms.size(); ++i) {
      arena.exit_normed.push_back(carver.Matrix(options.max_logit_tokens, size));
    }
  }
  arena.expert_weights = carver.Array<float>(tokens * widths.top_k);
  arena.square_sums = carver.Array<float>(tokens);
  arena.chosen = carver.Array<int32_t>(tokens * widths.top_k);
  arena.assigned = carver.Array<int32_t>(tokens * widths.top_k);
  arena.selected = carver.Array<int32_t>(tokens * widths.selected);
  arena.closed = carver.Array<int32_t>(options.max_rows);
  arena.drawn = carver.Array<uint32_t>(options.max_logit_tokens);
  arena.last_tokens = carver.Array<uint32_t>(slots);
  const int moe_layers = model.moe_layers() + (options.mtp ? 1 : 0);
  arena.expert_tokens = carver.Array<int32_t>(int64_t{moe_layers} * model.max_experts());
  arena.one = carver.Array<float>(1).data();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunnerArena>> RunnerArena::Allocate(
    const LoadedModel& model, const ModelRunner::Options& options, int slots, Ops* ops) {
  auto arena = std::make_unique<RunnerArena>();
  Carver measure(nullptr);
  Carve(model, options, slots, measure, *arena);
  auto memory = ops->Allocate(measure.bytes());
  if (!memory.ok()) return memory.status();
  arena->memory = *std::move(memory);
  arena->bytes = measure.bytes();
  Carver carver(arena->memory.get());
  Carve(model, options, slots, carver, *arena);
  constexpr float kOne = 1;
  ops->Upload(arena->one, &kOne, sizeof(kOne));
  return arena;
}

}  // namespace troupe
