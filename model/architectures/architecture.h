// What one model family needs to be understood: how its config becomes a ModelDescription, and what
// its tensors are called. A family is one file here plus its lines in families.h and registry.cc.
//
// Thread model: immutable constants. Ownership: Architectures have static lifetime.
#ifndef TROUPE_MODEL_ARCHITECTURES_ARCHITECTURE_H_
#define TROUPE_MODEL_ARCHITECTURES_ARCHITECTURE_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/description.h"
#include "model/json_reader.h"
#include "model/quantization.h"
#include "nlohmann/json_fwd.hpp"

namespace troupe {

// Names of tensors, with {layer} and {expert} for their numbers. The defaults are the ones that
// most families share; names of layers and modules are relative to the part named above them. The
// bias of "x.weight" is called "x.bias".
struct TensorNames {
  std::string embedding = "model.embed_tokens.weight";
  std::string lm_head = "lm_head.weight";
  std::string final_norm = "model.norm.weight";
  std::string early_exit_norm = "model.early_exit.{layer}.norm.weight";

  std::string layer = "model.layers.{layer}.";
  std::string attention_norm = "input_layernorm.weight";
  std::string attention_after_norm = "post_attention_layernorm.weight";
  std::string ffn_norm = "post_attention_layernorm.weight";
  std::string ffn_after_norm = "post_feedforward_layernorm.weight";

  std::string attention = "self_attn.";
  std::string q_proj = "q_proj.weight";
  std::string k_proj = "k_proj.weight";
  std::string v_proj = "v_proj.weight";
  std::string o_proj = "o_proj.weight";
  std::string q_norm = "q_norm.weight";
  std::string k_norm = "k_norm.weight";
  std::string sinks = "sinks";
  // Multi-head latent attention; q_b_proj stands for q_proj where queries have a latent.
  std::string q_a_proj = "q_a_proj.weight";
  std::string q_a_norm = "q_a_layernorm.weight";
  std::string q_b_proj = "q_b_proj.weight";
  std::string kv_a_proj = "kv_a_proj_with_mqa.weight";
  std::string kv_a_norm = "kv_a_layernorm.weight";
  std::string kv_b_proj = "kv_b_proj.weight";
  std::string gate_down = "head_gate.down_proj.weight";
  std::string gate_up = "head_gate.up_proj.weight";
  // NSA: the branch's prefix goes before k_proj, v_proj and k_norm.
  std::string nsa_compressed = "cmp_";
  std::string nsa_selected = "slc_";
  std::string nsa_window = "win_";
  std::string nsa_branch_gate = "branch_gate.weight";
  std::string nsa_phi_k = "phi_k.";
  std::string nsa_phi_v = "phi_v.";
  std::string phi_position = "position";
  std::string phi_w1 = "w1.weight";
  std::string phi_w2 = "w2.weight";

  std::string ffn = "mlp.";
  std::string ffn_gate = "gate_proj.weight";
  std::string ffn_up = "up_proj.weight";
  std::string ffn_down = "down_proj.weight";
  std::string router = "gate.weight";
  std::string correction_bias = "gate.e_score_correction_bias";
  std::string expert = "experts.{expert}.";
  std::string shared_expert = "shared_experts.";
  // Families that keep all experts in one tensor name it here, else these are empty:
  // [experts, hidden, 2 * inner], columns of gate and up taking turns, and [experts, inner,
  // hidden]. The biases' names have "_bias" behind these.
  std::string fused_gate_up;
  std::string fused_down;

  // The MTP module counts as the layer behind the last one.
  std::string mtp_embedding_norm = "enorm.weight";
  std::string mtp_hidden_norm = "hnorm.weight";
  std::string mtp_input_proj = "eh_proj.weight";
  std::string mtp_head_norm = "shared_head.norm.weight";

  // Tensors of layers that published checkpoints hold although nothing needs them.
  std::vector<std::string> ignored;
};

struct Architecture {
  absl::string_view name;        // for people
  absl::string_view model_type;  // config.json's model_type
  absl::string_view class_name;  // what config.json's architectures holds
  // Reads every key that the family knows; the caller calls config.Finish(), which refuses the
  // rest, and validates the description.
  ModelDescription (*describe)(JsonFields& config);
  TensorNames names;
};

std::span<const Architecture* const> Architectures();

// The description of a parsed config.json, checked and validated. `file` names it in errors.
struct ConfiguredModel {
  const Architecture* architecture;
  ModelDescription description;
  Quantization quantization;  // of its checkpoint
};
absl::StatusOr<ConfiguredModel> DescribeConfig(const std::string& file,
                                               const nlohmann::json& config);

}  // namespace troupe

#endif  // TROUPE_MODEL_ARCHITECTURES_ARCHITECTURE_H_
