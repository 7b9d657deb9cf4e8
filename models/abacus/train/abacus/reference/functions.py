"""Functions of tensors that the layers share."""

import math

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]


def subtree(weights: Weights, prefix: str) -> Weights:
    """The weights whose names start with `prefix`, under the rest of their names."""
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation of the last dimension."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary positions, half-split form. x [B, C, heads, D], positions [B, C]."""
    size = x.shape[-1]
    frequency = theta ** (-torch.arange(0, size, 2, device=x.device).float() / size)
    angle = positions[..., None].float() * frequency
    angle = torch.cat([angle, angle], -1)
    turned = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1)
    return x * angle.cos()[:, :, None] + turned * angle.sin()[:, :, None]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grouped-query attention.

    q [B, C, H, D]; k, v [B, G, T, D]; mask [B, 1 or G, 1, C, T], True where visible.
    Returns the output [B, C, H, D] and the probabilities [B, G, R, C, T].
    """
    b, c, h, size = q.shape
    groups, cached = k.shape[1], k.shape[2]
    grouped = q.view(b, c, groups, h // groups, size).permute(0, 2, 3, 1, 4)
    scores = torch.matmul(grouped.reshape(b, groups, -1, size), k.transpose(-1, -2))
    scores = scores.view(b, groups, -1, c, cached) / math.sqrt(size)
    p = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1)
    out = torch.matmul(p.view(b, groups, -1, cached), v).view(b, groups, -1, c, size)
    return out.permute(0, 3, 1, 2, 4).reshape(b, c, h, size), p


def swiglu(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The gated feed-forward network with gate_proj, up_proj and down_proj."""
    gate = F.silu(F.linear(x, weights["gate_proj.weight"]))
    return F.linear(gate * F.linear(x, weights["up_proj.weight"]), weights["down_proj.weight"])
