"""The selected branch of sparse attention: which blocks of 64 tokens, and attention to them."""

import math

import torch
import torch.nn.functional as F

from abacus.reference.functions import attend

BLOCK = 64
# Up to this many tokens a mask over all of them is cheaper than gathering the selected ones.
MASKED_TOKENS = 4096


def select_blocks(
    scores: torch.Tensor, positions: torch.Tensor, config: dict, number: int | None
) -> torch.Tensor:
    """The blocks that each token and KV head sees, bool [B, G, C, J].

    scores [B, G, C, N]: probabilities of compressed tokens. The first block and the latest ones are
    always taken, the others by score, ties to the earlier; number None takes all.
    """
    blocks = int(positions.max()) // BLOCK + 1
    padding = max(0, 4 * blocks - scores.shape[-1])
    quarters = F.pad(scores, (0, padding))[..., : 4 * blocks]
    quarters = quarters.reshape(*scores.shape[:-1], blocks, 4)
    # The compressed token before a block reaches into it with half of its length.
    before = F.pad(quarters[..., 3], (1, 0))[..., :blocks]
    inside = quarters[..., 0] + quarters[..., 1] + quarters[..., 2]
    score = 2 * inside + quarters[..., 3] + before
    j = torch.arange(blocks, device=scores.device)
    own = (positions // BLOCK)[:, None, :, None]
    visible = (j <= own).expand_as(score)
    if number is None:
        return visible
    always = (j < config["nsa_num_init_blocks"]) | (j > own - config["nsa_num_local_blocks"])
    score = torch.where(always, torch.full_like(score, 1e9), score)
    score = torch.where(visible, score, torch.full_like(score, -1.0))
    order = torch.sort(score, stable=True, dim=-1, descending=True).indices[..., :number]
    return torch.zeros_like(visible).scatter(-1, order, True) & visible


def attend_selected(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blocks: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Attention to the tokens of the selected blocks. q [B, C, H, D] -> [B, C, H, D]."""
    end = int(positions.max()) + 1
    most = int(blocks.sum(-1).max())
    if end <= MASKED_TOKENS or most > 16:
        t = torch.arange(end, device=q.device)
        mask = blocks[..., t // BLOCK] & (t <= positions[..., None])[:, None]
        return attend(q, keys[:, :, :end], values[:, :, :end], mask[:, :, None])[0]
    return _attend_gathered(q, keys, values, blocks, positions, most)


def _attend_gathered(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blocks: torch.Tensor,
    positions: torch.Tensor,
    most: int,
) -> torch.Tensor:
    """The same for long contexts: only the tokens of at most `most` blocks are read."""
    b, c, h, size = q.shape
    groups = keys.shape[1]
    taken, block = torch.sort(blocks.long(), stable=True, dim=-1, descending=True)
    taken, block = taken[..., :most].bool(), block[..., :most]
    t = (block[..., None] * BLOCK + torch.arange(BLOCK, device=q.device)).flatten(-2)
    mask = taken.repeat_interleave(BLOCK, -1) & (t <= positions[:, None, :, None])
    t = t.clamp(max=keys.shape[2] - 1)
    row = torch.arange(b, device=q.device)[:, None, None, None]
    group = torch.arange(groups, device=q.device)[None, :, None, None]
    k, v = keys[row, group, t], values[row, group, t]  # [B, G, C, most * 64, D]
    grouped = q.view(b, c, groups, -1, size).permute(0, 2, 1, 3, 4)  # [B, G, C, R, D]
    scores = torch.matmul(grouped, k.transpose(-1, -2)) / math.sqrt(size)
    p = torch.softmax(scores.masked_fill(~mask[..., None, :], float("-inf")), -1)
    return torch.matmul(p, v).permute(0, 2, 1, 3, 4).reshape(b, c, h, size)
