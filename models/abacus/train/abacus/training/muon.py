"""Muon: momentum, then the nearest orthogonal matrix (Newton-Schulz), for hidden matrices."""

from collections.abc import Iterable

import torch

# Coefficients of the quintic iteration.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


@torch.no_grad()
def orthogonal(g: torch.Tensor) -> torch.Tensor:
    """Nearest orthogonal matrices of g [n, r, c] with r <= c, in bf16."""
    x = g.bfloat16()
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).bfloat16()
    for _ in range(ITERATIONS):
        s = x @ x.transpose(-1, -2)
        s = torch.baddbmm(s, s, s, beta=B, alpha=C)
        x = torch.baddbmm(x, s, x, beta=A)
    return x


def _wide(x: torch.Tensor) -> torch.Tensor:
    """A matrix or a stack of them as [n, r, c] with r <= c."""
    x = x if x.ndim == 3 else x[None]
    return x.transpose(-1, -2) if x.shape[-2] > x.shape[-1] else x


class Muon:
    """Optimises matrices and stacks of them; an update's root mean square is 0.2 * lr."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        momentum: float = 0.95,
        weight_decay: float = 0.03,
    ):
        self.momentum, self.weight_decay = momentum, weight_decay
        # Matrices of one shape, or its transpose, are updated in one batch.
        self.groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for p in parameters:
            rows, columns = p.shape[-2:]
            key = (min(rows, columns), max(rows, columns))
            self.groups.setdefault(key, []).append(p)
        self.buffers: dict[tuple[int, int], torch.Tensor] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Updates all parameters from their gradients."""
        for key, parameters in self.groups.items():
            gradient = torch.cat([_wide(p.grad) for p in parameters])
            if key not in self.buffers:
                self.buffers[key] = torch.zeros_like(gradient)
            buffer = self.buffers[key]
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp_(buffer, self.momentum)).float()
            updates, at = [], 0
            for p in parameters:
                n = p.shape[0] if p.ndim == 3 else 1
                x = update[at : at + n]
                at += n
                if p.shape[-2] > p.shape[-1]:
                    x = x.transpose(-1, -2)
                updates.append(x.reshape(p.shape))
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
            torch._foreach_add_(parameters, updates, alpha=-lr * 0.2 * key[1] ** 0.5)
