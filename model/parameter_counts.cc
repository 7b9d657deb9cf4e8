#include "model/parameter_counts.h"

#include <algorithm>
#include <cstddef>
#include <variant>

namespace troupe {
namespace {

int64_t Count(const TensorView& tensor) { return tensor.empty() ? 0 : tensor.elements(); }

int64_t Count(const LinearWeights& linear) {
  return linear.weight.elements() + linear.bias.elements();
}

int64_t Count(const SwigluWeights& ffn) {
  return Count(ffn.gate_proj) + Count(ffn.up_proj) + Count(ffn.down_proj);
}

// Of `experts` experts only.
int64_t Count(const MoeWeights& moe, size_t experts) {
  int64_t count = Count(moe.router) + Count(moe.correction_bias);
  for (size_t e = 0; e < std::min(experts, moe.experts.size()); ++e) count += Count(moe.experts[e]);
  return count + (moe.shared ? Count(*moe.shared) : 0);
}

int64_t Count(const KvWeights& kv) {
  return Count(kv.k_proj) + Count(kv.v_proj) + Count(kv.k_norm);
}

int64_t Count(const CompressorWeights& phi) {
  return Count(phi.position) + Count(phi.w1) + Count(phi.w2);
}

int64_t Count(const NsaWeights& nsa) {
  return Count(nsa.compressed) + Count(nsa.selected) + Count(nsa.window) + Count(nsa.branch_gate) +
         Count(nsa.phi_k) + Count(nsa.phi_v);
}

int64_t Count(const MlaWeights& mla) {
  return Count(mla.q_a_proj) + Count(mla.q_a_norm) + Count(mla.kv_a_proj) + Count(mla.kv_a_norm) +
         Count(mla.kv_b_proj);
}

int64_t Count(const AttentionWeights& attention) {
  int64_t count = Count(attention.q_proj) + Count(attention.o_proj) + Count(attention.q_norm) +
                  Count(attention.sinks) +
                  std::visit([](const auto& kv) { return Count(kv); }, attention.kv);
  if (attention.head_gate) {
    count += Count(attention.head_gate->down_proj) + Count(attention.head_gate->up_proj);
  }
  return count;
}

int64_t Count(const SublayerNorms& norms) { return Count(norms.before) + Count(norms.after); }

struct Counts {
  int64_t total = 0;
  int64_t active = 0;
};

Counts CountLayer(const LayerDescription& description, const LayerWeights& layer) {
  const int64_t always =
      Count(layer.attention_norms) + Count(layer.ffn_norms) + Count(layer.attention);
  const auto* moe = std::get_if<MoeWeights>(&layer.ffn);
  if (moe == nullptr) {
    const int64_t all = always + Count(std::get<SwigluWeights>(layer.ffn));
    return {all, all};
  }
  const int chosen = std::get<MoeFfn>(description.ffn).experts_per_token;
  return {always + Count(*moe, moe->experts.size()), always + Count(*moe, chosen)};
}

int64_t CountMtp(const MtpDescription& description, const MtpWeights& mtp) {
  return Count(mtp.embedding_norm) + Count(mtp.hidden_norm) + Count(mtp.input_proj) +
         Count(mtp.head_norm) + CountLayer(description.layer, mtp.layer).total;
}

}  // namespace

ParameterCounts CountParameters(const SafetensorsCheckpoint& files,
                                const ModelDescription& description, const ModelWeights& weights) {
  ParameterCounts counts;
  counts.active = Count(weights.embedding) + Count(weights.final_norm);
  if (!description.tied_embeddings) counts.active += Count(weights.lm_head);
  counts.total = counts.active;
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const Counts layer = CountLayer(description.layers[i], weights.layers[i]);
    counts.total += layer.total;
    counts.active += layer.active;
  }
  for (const TensorView& norm : weights.early_exit_norms) counts.total += Count(norm);
  if (weights.mtp) counts.total += CountMtp(*description.mtp, *weights.mtp);
  for (const auto& [name, view] : files.tensors()) {
    counts.tensors += 1;
    counts.bytes_by_dtype[view.dtype] += static_cast<int64_t>(view.bytes.size());
  }
  return counts;
}

}  // namespace troupe
