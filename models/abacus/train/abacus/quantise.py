"""Round-to-nearest quantisation of weights, to measure what it costs."""

from collections.abc import Callable

import torch

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "eh_proj")


def quantise(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """`weight` [rows, columns] as it reads back from symmetric integers of `bits` bits.

    One fp32 scale for each `group` columns of a row; group 0: for the whole row.
    """
    rows, columns = weight.shape
    size = group or columns
    x = weight.reshape(rows, columns // size, size)
    top = (1 << (bits - 1)) - 1
    scale = x.abs().amax(-1, keepdim=True) / top
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((x / scale).round().clamp(-top, top) * scale).reshape(rows, columns)


def quantiser(bits: int, group: int) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """For Reference's `adjust`: quantises linear layers, but not the head gates'."""

    def adjust(name: str, weight: torch.Tensor) -> torch.Tensor:
        part = name.split(".")[-2]
        linear = part in LINEARS or part.split("_", 1)[-1] in LINEARS
        return quantise(weight, bits, group) if linear and "head_gate" not in name else weight

    return adjust
