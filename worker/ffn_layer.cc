#include "worker/ffn_layer.h"

#include <variant>

#include "worker/expert_exchange.h"
#include "worker/tensor_parts.h"

namespace troupe {
namespace {

void RunDense(const LayerContext& context, const DenseFfn& description, const LoadedSwiglu& ffn,
              const SublayerIn& in, const SublayerOut& out) {
  const int64_t tokens = context.tokens();
  const Tensor inner =
      Columns(FirstRows(context.arena.ffn_inner, tokens), 0, ffn.gate_up->outputs());
  Tensor activated = Columns(FirstRows(context.arena.ffn_activated, tokens), 0, ffn.down->inputs());
  if (context.ops.TakesRounded(*ffn.down, tokens)) activated.dtype = DType::kBf16;
  context.ops.Linear(
      {in.x, ffn.gate_up.get(), inner, /*accumulate=*/false, ffn.gate_up_bias.data(), in.norm});
  context.ops.Swiglu({inner, activated, description.activation});
  context.ops.Linear({activated, ffn.down.get(), out.tensor, out.accumulate, ffn.down_bias.data()});
}

// Chooses experts for x; what was chosen is left in the arena.
void Route(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
           const SublayerIn& in) {
  RunnerArena& arena = context.arena;
  const RouterDescription& router = description.router;
  const int64_t tokens = context.tokens();
  const Tensor logits = Columns(FirstRows(arena.router_logits, tokens), 0, description.experts);
  MoeRouteParams params;
  params.x = in.x;
  params.norm = in.norm;
  params.router = moe.router.get();
  params.router_bias = moe.router_bias.data();
  params.logits = logits;
  params.bias = moe.correction_bias.data();
  params.top_k = description.experts_per_token;
  params.normalize = router.normalise_weights;
  params.scale = router.weight_scale;
  params.experts = arena.chosen.data();
  params.weights = arena.expert_weights.data();
  params.load =
      arena.expert_tokens.data() + static_cast<ptrdiff_t>(moe.index) * context.model.max_experts();
  params.scoring = router.scoring;
  params.group_score = router.group_score;
  params.groups = router.groups;
  params.groups_chosen = router.groups_chosen;
  context.ops.MoeRoute(params);
  if (context.tap != nullptr) {
    const size_t count = static_cast<size_t>(tokens) * description.experts_per_token;
    const auto chosen = Fetched(context.ops, arena.chosen.subspan(0, count));
    const auto weights = Fetched(context.ops, arena.expert_weights.subspan(0, count));
    context.ops.Synchronize();
    context.tap->OnExperts(context.layer.index, chosen, weights);
  }
}

void RunExperts(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
                const SublayerIn& in, const SublayerOut& out) {
  Route(context, description, moe, in);
  context.exchange.Run(context, description, moe, in, out);
}

}  // namespace

void RunFfn(const LayerContext& context, const SublayerIn& in, const SublayerOut& out) {
  const FfnDescription& description = context.layer.description.ffn;
  if (const auto* moe = std::get_if<LoadedMoe>(&context.layer.ffn)) {
    RunExperts(context, std::get<MoeFfn>(description), *moe, in, out);
  } else {
    RunDense(context, std::get<DenseFfn>(description), std::get<LoadedSwiglu>(context.layer.ffn),
             in, out);
  }
}

}  // namespace troupe
