#include "model/parameter_counts.h"

#include <algorithm>
#include <cstddef>
#include <variant>

namespace troupe {
namespace {

struct Tally {
  int64_t all = 0;
  int64_t in_matrices = 0;

  Tally operator+(const Tally& other) const {
    return {all + other.all, in_matrices + other.in_matrices};
  }
};

Tally Count(const TensorView& tensor) { return {tensor.empty() ? 0 : tensor.elements(), 0}; }

Tally Count(const LinearWeights& linear) {
  return {linear.weight.elements() + linear.bias.elements(), linear.weight.elements()};
}

Tally Count(const SwigluWeights& ffn) {
  return Count(ffn.gate_proj) + Count(ffn.up_proj) + Count(ffn.down_proj);
}

// Of `experts` experts only.
Tally Count(const MoeWeights& moe, size_t experts) {
  Tally count = Count(moe.router) + Count(moe.correction_bias);
  for (size_t e = 0; e < std::min(experts, moe.experts.size()); ++e) {
    count = count + Count(moe.experts[e]);
  }
  return moe.shared ? count + Count(*moe.shared) : count;
}

Tally Count(const KvWeights& kv) { return Count(kv.k_proj) + Count(kv.v_proj) + Count(kv.k_norm); }

Tally Count(const CompressorWeights& phi) {
  return Count(phi.position) + Count(phi.w1) + Count(phi.w2);
}

Tally Count(const NsaWeights& nsa) {
  return Count(nsa.compressed) + Count(nsa.selected) + Count(nsa.window) + Count(nsa.branch_gate) +
         Count(nsa.phi_k) + Count(nsa.phi_v);
}

Tally Count(const MlaWeights& mla) {
  return Count(mla.q_a_proj) + Count(mla.q_a_norm) + Count(mla.kv_a_proj) + Count(mla.kv_a_norm) +
         Count(mla.kv_b_proj);
}

Tally Count(const AttentionWeights& attention) {
  const Tally count = Count(attention.q_proj) + Count(attention.o_proj) + Count(attention.q_norm) +
                      Count(attention.sinks) +
                      std::visit([](const auto& kv) { return Count(kv); }, attention.kv);
  if (!attention.head_gate) return count;
  return count + Count(attention.head_gate->down_proj) + Count(attention.head_gate->up_proj);
}

Tally Count(const SublayerNorms& norms) { return Count(norms.before) + Count(norms.after); }

struct LayerTally {
  Tally total;
  Tally active;
};

LayerTally CountLayer(const LayerDescription& description, const LayerWeights& layer) {
  const Tally always =
      Count(layer.attention_norms) + Count(layer.ffn_norms) + Count(layer.attention);
  const auto* moe = std::get_if<MoeWeights>(&layer.ffn);
  if (moe == nullptr) {
    const Tally all = always + Count(std::get<SwigluWeights>(layer.ffn));
    return {all, all};
  }
  const int chosen = std::get<MoeFfn>(description.ffn).experts_per_token;
  return {always + Count(*moe, moe->experts.size()), always + Count(*moe, chosen)};
}

Tally CountMtp(const MtpDescription& description, const MtpWeights& mtp) {
  return Count(mtp.embedding_norm) + Count(mtp.hidden_norm) + Count(mtp.input_proj) +
         Count(mtp.head_norm) + CountLayer(description.layer, mtp.layer).total;
}

}  // namespace

ParameterCounts CountParameters(const SafetensorsCheckpoint& files,
                                const ModelDescription& description, const ModelWeights& weights) {
  Tally active = Count(weights.embedding) + Count(weights.final_norm);
  if (!description.tied_embeddings) active = active + Count(weights.lm_head);
  Tally total = active;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const LayerTally layer = CountLayer(description.layers[i], weights.layers[i]);
    total = total + layer.total;
    active = active + layer.active;
  }
  for (const TensorView& norm : weights.early_exit_norms) total = total + Count(norm);
  if (weights.mtp) total = total + CountMtp(*description.mtp, *weights.mtp);
  ParameterCounts counts{.total = total.all, .active = active.all, .matrices = total.in_matrices};
  for (const auto& [name, view] : files.tensors()) {
    counts.tensors += 1;
    counts.bytes_by_dtype[view.dtype] += static_cast<int64_t>(view.bytes.size());
  }
  return counts;
}

}  // namespace troupe
