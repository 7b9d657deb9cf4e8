"""The tensors of a layer under their names on disk."""

import torch
from torch import nn

from abacus.training.feed_forward import Dense, Experts


def layer_tensors(prefix: str, layer: nn.Module) -> dict[str, torch.Tensor]:
    """Names on disk, which start with `prefix`, -> views of the layer's parameters."""
    out = {
        "input_layernorm.weight": layer.norm1,
        "post_attention_layernorm.weight": layer.norm2,
    }
    out |= {f"self_attn.{name}": t for name, t in _attention(layer.attn).items()}
    mlp = _dense(layer.mlp) if isinstance(layer.mlp, Dense) else _experts(layer.mlp)
    out |= {f"mlp.{name}": t for name, t in mlp.items()}
    return {prefix + name: t for name, t in out.items()}


def _attention(a: nn.Module) -> dict[str, torch.Tensor]:
    names = ["q_proj", "o_proj", "q_norm"]
    for branch in ("cmp_", "slc_", "win_") if a.sparse else ("",):
        names += [branch + "k_proj", branch + "v_proj", branch + "k_norm"]
    out = {f"{name}.weight": getattr(a, name) for name in names}
    out["head_gate.down_proj.weight"] = a.gate_w1
    out["head_gate.up_proj.weight"] = a.gate_w2
    if a.sparse:
        out["branch_gate.weight"] = a.branch_gate
        for name in ("phi_k", "phi_v"):
            phi = getattr(a, name)
            out[f"{name}.position"] = phi.position
            out[f"{name}.w1.weight"], out[f"{name}.w2.weight"] = phi.w1, phi.w2
    return out


def _dense(mlp: Dense) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": getattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}


def _experts(mlp: Experts) -> dict[str, torch.Tensor]:
    out = {"gate.weight": mlp.router, "gate.e_score_correction_bias": mlp.bias}
    for e in range(len(mlp.bias)):
        out[f"experts.{e}.gate_proj.weight"] = mlp.gate_proj[e]
        out[f"experts.{e}.up_proj.weight"] = mlp.up_proj[e]
        out[f"experts.{e}.down_proj.weight"] = mlp.down_t[e].t()
    out["shared_experts.gate_proj.weight"] = mlp.shared_gate
    out["shared_experts.up_proj.weight"] = mlp.shared_up
    out["shared_experts.down_proj.weight"] = mlp.shared_down_t.t()
    return out
