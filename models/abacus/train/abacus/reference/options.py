"""What a run may change, and what it can report."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Options:
    """What a run may change."""

    # Heads whose gate is lower contribute nothing.
    gate_threshold: float = 0.3
    # Blocks that the selected branch sees; None: all.
    selected_blocks: int | None = 8


@dataclass
class Details:
    """What the layers decided for one chunk, layer by layer; the MTP layer is left out."""

    # After the embedding and after each layer, [B, C, d].
    hidden: list[torch.Tensor] = field(default_factory=list)
    # Head gates before the threshold, [B, C, H].
    gates: list[torch.Tensor] = field(default_factory=list)
    # Sparse layers: whether a block is selected, bool [B, G, C, J].
    selected: list[torch.Tensor] = field(default_factory=list)
    # MoE layers: the chosen experts and their weights, [B, C, 2].
    experts: list[torch.Tensor] = field(default_factory=list)
    expert_weights: list[torch.Tensor] = field(default_factory=list)
