"""Mixture of experts with one shared expert."""

import torch
import torch.nn.functional as F

from abacus.reference.functions import Weights, swiglu
from abacus.reference.options import Details


class Experts:
    """All experts side by side in one product, masked by the routing weights: exact and simple."""

    def __init__(self, config: dict, weights: Weights):
        self.config = config
        self.router = weights["gate.weight"]
        self.bias = weights["gate.e_score_correction_bias"]
        names = [f"experts.{e}" for e in range(config["n_routed_experts"])] + ["shared_experts"]
        self.gate = torch.cat([weights[f"{name}.gate_proj.weight"] for name in names])
        self.up = torch.cat([weights[f"{name}.up_proj.weight"] for name in names])
        self.down = torch.cat([weights[f"{name}.down_proj.weight"] for name in names], 1)

    def forward(self, x: torch.Tensor, details: Details | None) -> torch.Tensor:
        """x [B, C, d] normalised -> [B, C, d]."""
        c = self.config
        score = torch.sigmoid(F.linear(x, self.router))
        # The bias balances the load; it selects but does not weigh.
        chosen = torch.topk(score + self.bias, c["num_experts_per_tok"], -1).indices
        weight = score.gather(-1, chosen)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * c["routed_scaling_factor"]
        if details is not None:
            details.experts.append(chosen)
            details.expert_weights.append(weight)
        size = c["moe_intermediate_size"]
        routed = torch.zeros_like(score).scatter(-1, chosen, weight).repeat_interleave(size, -1)
        shared = torch.ones(*routed.shape[:-1], size, device=x.device)
        active = F.silu(F.linear(x, self.gate)) * F.linear(x, self.up)
        return F.linear(active * torch.cat([routed, shared], -1), self.down)


class Dense:
    """The feed-forward network of layers without experts."""

    def __init__(self, weights: Weights):
        self.weights = weights

    def forward(self, x: torch.Tensor, details: Details | None) -> torch.Tensor:
        """x [B, C, d] normalised -> [B, C, d]."""
        return swiglu(x, self.weights)
