"""Feed-forward networks: dense, and a mixture of experts."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

NEGATIVE = -1e30


class Dense(nn.Module):
    """SwiGLU."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        d, m = c.hidden_size, c.intermediate_size
        self.gate_proj = nn.Parameter(torch.randn(m, d) / math.sqrt(d) * 0.5)
        self.up_proj = nn.Parameter(torch.randn(m, d) / math.sqrt(d) * 0.5)
        self.down_proj = nn.Parameter(torch.randn(d, m) / math.sqrt(m) * 0.15)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """x [B, T, d] -> [B, T, d]; there are no expert loads."""
        g, u = F.linear(x, torch.cat([self.gate_proj, self.up_proj])).chunk(2, -1)
        return F.linear(F.silu(g) * u, self.down_proj), None


class Experts(nn.Module):
    """All experts in one dense product, masked by the routing weights: exact, and fast here."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.c = c
        d, m, e = c.hidden_size, c.moe_intermediate_size, c.n_routed_experts
        self.router = nn.Parameter(torch.randn(e, d) / math.sqrt(d))
        self.register_buffer("bias", torch.zeros(e))
        self.gate_proj = nn.Parameter(torch.randn(e, m, d) / math.sqrt(d) * 0.5)
        self.up_proj = nn.Parameter(torch.randn(e, m, d) / math.sqrt(d) * 0.5)
        # down_proj is kept transposed.
        self.down_t = nn.Parameter(torch.randn(e, m, d) / math.sqrt(m) * 0.15)
        self.shared_gate = nn.Parameter(torch.randn(m, d) / math.sqrt(d) * 0.5)
        self.shared_up = nn.Parameter(torch.randn(m, d) / math.sqrt(d) * 0.5)
        self.shared_down_t = nn.Parameter(torch.randn(m, d) / math.sqrt(m) * 0.15)

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [B, T, experts], zero for all but two; and which two, as a mask."""
        with torch.autocast(x.device.type, enabled=False):
            score = torch.sigmoid(F.linear(x.float(), self.router.float()))
        ids = torch.arange(self.bias.shape[0], device=x.device)
        # The bias balances the load; it selects but does not weigh.
        biased = (score + self.bias).detach()
        first = biased.max(-1).indices[..., None] == ids
        second = biased.masked_fill(first, NEGATIVE).max(-1).indices[..., None] == ids
        chosen = first | second
        weight = score * chosen
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * self.c.routed_scaling_factor
        return weight, chosen

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [B, T, d] -> [B, T, d], and the tokens that chose each expert [experts]."""
        e, m, d = self.gate_proj.shape
        weight, chosen = self.route(x)
        gate = [self.gate_proj.reshape(e * m, d), self.shared_gate]
        up = [self.up_proj.reshape(e * m, d), self.shared_up]
        g, u = F.linear(x, torch.cat(gate + up)).chunk(2, -1)
        a = F.silu(g) * u
        routed = weight[..., None].expand(*weight.shape, m).flatten(-2)
        shared = torch.ones_like(weight[..., :1]).expand(*weight.shape[:-1], m)
        a = a * torch.cat([routed, shared], -1).to(a.dtype)
        out = a @ torch.cat([self.down_t.reshape(e * m, d), self.shared_down_t])
        return out, chosen.float().sum((0, 1))
