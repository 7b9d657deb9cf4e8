#include "worker/expert_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "base/check.h"
#include "sharding/expert_placement.h"
#include "worker/device_memory.h"
#include "worker/tensor_parts.h"

namespace troupe {
namespace {

MoeExpertsParams ParamsOf(const MoeFfn& description, const LoadedMoe& moe) {
  MoeExpertsParams params;
  params.experts = moe.list.get();
  params.top_k = description.experts_per_token;
  params.activation = description.activation;
  return params;
}

// One home: nothing travels.
class ExpertsHere : public ExpertExchange {
 public:
  void Run(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
           const SublayerIn& in, const SublayerOut& out) override {
    MoeExpertsParams params = ParamsOf(description, moe);
    params.x = in.x;
    params.norm = in.norm;
    params.shared = moe.shared.has_value() ? &*moe.shared : nullptr;
    params.chosen = Assigned(context, params.top_k, moe);
    params.weights = context.arena.expert_weights.data();
    params.out = out.tensor;
    params.accumulate = out.accumulate;
    context.ops.MoeExperts(params);
  }

  int64_t bytes() const override { return 0; }

 private:
  // The step's choices as numbers of moe.experts.
  static const int32_t* Assigned(const LayerContext& context, int top_k, const LoadedMoe& moe) {
    if (moe.copies_begin == nullptr) return context.arena.chosen.data();
    MoeAssignParams params;
    params.tokens = static_cast<int>(context.tokens());
    params.top_k = top_k;
    params.chosen = context.arena.chosen.data();
    params.position = context.input.batch().position;
    params.begin = reinterpret_cast<const int32_t*>(moe.copies_begin.get());
    params.local = reinterpret_cast<const int32_t*>(moe.copies_local.get());
    params.assigned = context.arena.assigned.data();
    context.ops.MoeAssign(params);
    return params.assigned;
  }
};

// A choice as it travels with its token.
struct Choice {
  int32_t expert = -1;  // of all; -1: another rank computes it
  float weight = 0;
};

// Several homes. What goes where is worked out on the host, which for a CPU's Ops costs nothing.
class ExpertsOfHomes : public ExpertExchange {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Make(const LoadedModel& model,
                                                              int max_tokens, int homes, Ops* ops) {
    auto exchange = std::make_unique<ExpertsOfHomes>();
    int top_k = 0;
    const auto count = [&](const LoadedLayer& layer) {
      const auto* moe = std::get_if<MoeFfn>(&layer.description.ffn);
      if (moe != nullptr) top_k = std::max(top_k, moe->experts_per_token);
    };
    for (const LoadedLayer& layer : model.layers) count(layer);
    if (model.mtp.has_value()) count(model.mtp->layer);
    exchange->homes_ = homes;
    const int64_t rows = int64_t{max_tokens} * homes;
    const int64_t row_bytes = model.description.hidden_size * BytesOf(DType::kF32);
    const auto allocate = [&](Buffer& buffer, int64_t bytes) -> absl::Status {
      auto memory = ops->Allocate(bytes);
      if (!memory.ok()) return memory.status();
      buffer = *std::move(memory);
      exchange->bytes_ += bytes;
      return absl::OkStatus();
    };
    for (Buffer* buffer : {&exchange->sent_, &exchange->received_, &exchange->results_}) {
      if (absl::Status status = allocate(*buffer, rows * row_bytes); !status.ok()) return status;
    }
    const int64_t choices = rows * top_k * static_cast<int64_t>(sizeof(Choice));
    for (Buffer* buffer : {&exchange->sent_choices_, &exchange->received_choices_}) {
      if (absl::Status status = allocate(*buffer, choices); !status.ok()) return status;
    }
    const int64_t counts = homes * static_cast<int64_t>(sizeof(int64_t));
    for (Buffer* buffer : {&exchange->sent_counts_, &exchange->received_counts_}) {
      if (absl::Status status = allocate(*buffer, counts); !status.ok()) return status;
    }
    return exchange;
  }

  void Run(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
           const SublayerIn& in, const SublayerOut& out) override {
    CHECK(in.norm.weight == nullptr) << "rows travel normed";
    const Tensor& x = in.x;
    RunShared(context, description, moe, x, out);
    Plan(context, description.experts_per_token);
    Dispatch(context, description.experts_per_token, x);
    Compute(context, description, moe, x.cols);
    Combine(context, x.cols, out);
  }

  int64_t bytes() const override { return bytes_; }

 private:
  // Leaves the shared expert's term in `out`, or zeros where there is nothing to keep.
  static void RunShared(const LayerContext& context, const MoeFfn& description,
                        const LoadedMoe& moe, const Tensor& x, const SublayerOut& out) {
    if (!moe.shared.has_value()) {
      const int64_t bytes = out.tensor.rows * out.tensor.stride * BytesOf(DType::kF32);
      if (!out.accumulate) context.ops.Clear(out.tensor.data, bytes);
      return;
    }
    // One expert that all tokens chose, with a weight of one.
    const std::vector<int32_t> chosen(context.tokens(), 0);
    const std::vector<float> weights(context.tokens(), 1);
    MoeExpertsParams params;
    params.x = x;
    params.experts = moe.shared_list.get();
    params.top_k = 1;
    params.chosen = Staged(context.ops, chosen.data(), context.tokens());
    params.weights = Staged(context.ops, weights.data(), context.tokens());
    params.out = out.tensor;
    params.activation = description.activation;
    params.accumulate = out.accumulate;
    context.ops.MoeExperts(params);
    context.ops.Synchronize();  // until then the vectors may be what is read
  }

  // Which of this home's tokens go to each home's rank, with which choices.
  void Plan(const LayerContext& context, int top_k) {
    const int64_t tokens = context.tokens();
    const auto pairs = static_cast<size_t>(tokens * top_k);
    const auto chosen = Fetched(context.ops, context.arena.chosen.subspan(0, pairs));
    const auto weights = Fetched(context.ops, context.arena.expert_weights.subspan(0, pairs));
    const auto positions =
        Fetched(context.ops, absl::MakeSpan(const_cast<int32_t*>(context.input.batch().position),
                                            static_cast<size_t>(tokens)));
    context.ops.Synchronize();
    const ExpertPlacement& placement = context.model.shard.placement[context.layer.index];
    const int tp = context.links.tp->size();
    tokens_.clear();
    choices_.clear();
    first_.assign(1, 0);
    for (int home = 0; home < homes_; ++home) {
      const int target = home * tp + context.links.tp->rank();
      for (int64_t token = 0; token < tokens; ++token) {
        const size_t before = choices_.size();
        bool any = false;
        for (int k = 0; k < top_k; ++k) {
          const auto pair = static_cast<size_t>(token * top_k + k);
          const bool there =
              HolderFor(placement, chosen[pair], positions[static_cast<size_t>(token)]) == target;
          choices_.push_back(there ? Choice{chosen[pair], weights[pair]} : Choice{});
          any = any || there;
        }
        if (any) {
          tokens_.push_back(static_cast<uint32_t>(token));
        } else {
          choices_.resize(before);
        }
      }
      first_.push_back(static_cast<int64_t>(tokens_.size()));
    }
  }

  // Pieces of `rows` rows each of neighbouring memory, one a home.
  static std::vector<CommBytes> Pieces(const void* memory, const std::vector<int64_t>& first,
                                       int64_t row_bytes) {
    std::vector<CommBytes> pieces;
    for (size_t home = 0; home + 1 < first.size(); ++home) {
      auto* bytes = static_cast<std::byte*>(const_cast<void*>(memory));
      pieces.push_back(
          {bytes + first[home] * row_bytes, (first[home + 1] - first[home]) * row_bytes});
    }
    return pieces;
  }

  void Dispatch(const LayerContext& context, int top_k, const Tensor& x) {
    Ops& ops = context.ops;
    Communicator& dp = *context.links.dp;
    std::vector<int64_t> one_each(homes_ + 1);
    std::iota(one_each.begin(), one_each.end(), 0);
    std::vector<int64_t> counts;
    counts.reserve(homes_);
    for (int home = 0; home < homes_; ++home) counts.push_back(first_[home + 1] - first_[home]);
    ops.Upload(sent_counts_.get(), counts.data(), homes_ * sizeof(int64_t));
    dp.AllToAll(Pieces(sent_counts_.get(), one_each, sizeof(int64_t)),
                Pieces(received_counts_.get(), one_each, sizeof(int64_t)));
    const auto received =
        Fetched(ops, absl::MakeSpan(reinterpret_cast<int64_t*>(received_counts_.get()), homes_));
    ops.Synchronize();
    received_first_.assign(1, 0);
    // After a failure nothing arrives, and what lies there is not to be believed.
    const bool ok = dp.status().ok();
    for (const int64_t count : received) {
      received_first_.push_back(received_first_.back() + (ok ? count : 0));
    }
    const auto sent_rows = static_cast<int64_t>(tokens_.size());
    const Tensor sent = {sent_.get(), DType::kF32, sent_rows, x.cols, x.cols};
    if (sent_rows > 0) ops.Embed({Staged(ops, tokens_.data(), sent_rows), x, sent});
    const int64_t row_bytes = x.cols * BytesOf(DType::kF32);
    dp.AllToAll(Pieces(sent.data, first_, row_bytes),
                Pieces(received_.get(), received_first_, row_bytes));
    const auto choice_bytes = static_cast<int64_t>(top_k * sizeof(Choice));
    ops.Upload(sent_choices_.get(), choices_.data(), sent_rows * choice_bytes);
    dp.AllToAll(Pieces(sent_choices_.get(), first_, choice_bytes),
                Pieces(received_choices_.get(), received_first_, choice_bytes));
    // Choices that did not come are those of another layer: there are no experts to look for.
    if (!dp.status().ok()) received_first_.assign(homes_ + 1, 0);
  }

  void Compute(const LayerContext& context, const MoeFfn& description, const LoadedMoe& moe,
               int64_t cols) {
    Ops& ops = context.ops;
    const int64_t rows = received_first_.back();
    const int64_t pairs = rows * description.experts_per_token;
    const auto choices =
        Fetched(ops, absl::MakeSpan(reinterpret_cast<Choice*>(received_choices_.get()), pairs));
    ops.Synchronize();
    const std::vector<int>& held = context.model.shard.experts[context.layer.index];
    assigned_.clear();
    weights_.clear();
    for (const Choice& choice : choices) {
      const auto found = std::lower_bound(held.begin(), held.end(), choice.expert);
      CHECK(choice.expert < 0 || (found != held.end() && *found == choice.expert))
          << "layer " << context.layer.index << ": expert " << choice.expert << " is not here";
      assigned_.push_back(choice.expert < 0 ? -1 : static_cast<int32_t>(found - held.begin()));
      weights_.push_back(choice.weight);
    }
    MoeExpertsParams params = ParamsOf(description, moe);
    params.x = {received_.get(), DType::kF32, rows, cols, cols};
    params.chosen = Staged(ops, assigned_.data(), pairs);
    params.weights = Staged(ops, weights_.data(), pairs);
    params.out = {results_.get(), DType::kF32, rows, cols, cols};
    params.accumulate = false;
    ops.MoeExperts(params);
  }

  void Combine(const LayerContext& context, int64_t cols, const SublayerOut& out) {
    const int64_t row_bytes = cols * BytesOf(DType::kF32);
    context.links.dp->AllToAll(Pieces(results_.get(), received_first_, row_bytes),
                               Pieces(sent_.get(), first_, row_bytes));
    const auto* rows = reinterpret_cast<const int32_t*>(tokens_.data());
    const int32_t* staged = Staged(context.ops, rows, static_cast<int64_t>(tokens_.size()));
    const Tensor back = {sent_.get(), DType::kF32, first_.back(), cols, cols};
    for (int home = 0; home < homes_; ++home) {
      const Tensor part = Rows(back, first_[home], first_[home + 1] - first_[home]);
      context.ops.RowAdd({part, staged + first_[home], out.tensor});
    }
    context.ops.Synchronize();  // the next layer's plan is written where this one's is read
  }

  int homes_ = 1;
  int64_t bytes_ = 0;
  Buffer sent_;      // rows by target, and their results when they are back
  Buffer received_;  // rows by source
  Buffer results_;   // theirs
  Buffer sent_choices_;
  Buffer received_choices_;
  Buffer sent_counts_;
  Buffer received_counts_;
  // Of the layer that runs.
  std::vector<uint32_t> tokens_;         // of this home, by target
  std::vector<Choice> choices_;          // [tokens_, top_k]
  std::vector<int64_t> first_;           // [homes + 1] in tokens_
  std::vector<int64_t> received_first_;  // [homes + 1] in rows received
  std::vector<int32_t> assigned_;
  std::vector<float> weights_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExpertExchange(const LoadedModel& model,
                                                                   int max_tokens,
                                                                   const RankLinks& links,
                                                                   Ops* ops) {
  // Experts that are split lie in every home whole.
  if (links.dp->size() == 1 || !model.shard.layout.expert_parallel) {
    return std::make_unique<ExpertsHere>();
  }
  return ExpertsOfHomes::Make(model, max_tokens, links.dp->size(), ops);
}

}  // namespace troupe
