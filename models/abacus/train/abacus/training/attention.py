"""Attention over whole sequences: sliding windows, and the three sparse branches (NSA).

Two ways: "flex" (CUDA, inside torch.compile) and "naive" (plain operations on any device, the
oracle of the other). The semantics are those of abacus.reference; both must agree.

Symbols in shapes: B rows, T tokens, H query heads, G KV heads, D head size.
"""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

try:
    from torch.nn.attention.flex_attention import flex_attention
except ImportError:  # an old PyTorch has only the naive way
    flex_attention = None

NEGATIVE = -1e30
BLOCK = 64
# Smaller tiles for the selected branch of long rows: its mask needs registers.
LONG_ROW = 4096
LONG_ROW_OPTIONS = {"BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 1}


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation of the last dimension, in fp32."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope_tables(
    tokens: int, size: int, theta: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [tokens, size] of rotary positions."""
    frequency = theta ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angle = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * frequency[None]
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, half-split form. x [B, T, heads, D]."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos[None, :, None] + turned * sin[None, :, None]


def naive_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """q [B, H, T, D]; k, v [B, G, T, D]; mask broadcastable to [B, H, T, T], True where visible."""
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
    return torch.softmax(scores.masked_fill(~mask, NEGATIVE), -1).to(v.dtype) @ v


class Phi(nn.Module):
    """Compresses 32 raw keys or values to one: a softmax over the block, one weight a channel."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        d = c.head_dim
        self.position = nn.Parameter(torch.randn(c.nsa_compress_block_size, d) * 0.02)
        self.w1 = nn.Parameter(torch.randn(d, d) / math.sqrt(d))
        self.w2 = nn.Parameter(torch.randn(d, d) * 0.02)
        self.stride = c.nsa_compress_stride

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """z [B, T, G, D] -> [B, G, T/stride, D], the last of which is incomplete."""
        b, t, g, d = z.shape
        halves = z.reshape(b, t // self.stride, self.stride, g, d)
        block = torch.cat([halves, torch.cat([halves[:, 1:], halves[:, -1:]], 1)], 2)
        u = F.silu(F.linear(block + self.position[:, None], self.w1))
        a = torch.softmax(F.linear(u, self.w2).float(), 2)
        return (a * block).sum(2).transpose(1, 2)


def pick_blocks(p: torch.Tensor, number: int, initial: int, local: int) -> torch.Tensor:
    """The blocks each token sees, bool [B, G, T, blocks].

    p [B, G, T, 4 * blocks]: probabilities of compressed keys, summed over a group's heads.
    """
    b, g, t, compressed = p.shape
    blocks = compressed // 4
    quarters = p.view(b, g, t, blocks, 4)
    # The compressed token before a block reaches into it with half of its length.
    before = F.pad(quarters[..., 3], (1, 0))[..., :blocks]
    inside = quarters[..., 0] + quarters[..., 1] + quarters[..., 2]
    score = 2 * inside + quarters[..., 3] + before
    j = torch.arange(blocks, device=p.device)
    own = (torch.arange(t, device=p.device) // BLOCK)[:, None]
    score = torch.where((j < initial) | (j > own - local), 1e9, score)
    score = torch.where(j <= own, score, -1.0)
    higher = score[..., None, :] > score[..., :, None]
    tied = (score[..., None, :] == score[..., :, None]) & (j[None, :] < j[:, None])
    rank = (higher | tied).sum(-1, dtype=torch.int32)
    return (rank < number) & (j <= own)


def flex_selected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, selected, causal):
    """Flex attention to the selected blocks; they are read as bits of words, 32 blocks a word."""
    b, g, t, blocks = selected.shape
    n = -(-blocks // 32)
    bits = F.pad(selected, (0, n * 32 - blocks)).view(b, g, t, n, 32).to(torch.int32)
    shift = torch.arange(32, device=q.device, dtype=torch.int32)
    words = (bits << shift).sum(-1, dtype=torch.int32).contiguous()
    repeat = q.shape[1] // g

    def score_mod(score, row, head, query, key):
        word = words[row, head // repeat, query, 0]
        # Row loads and selects: a load indexed by `key` would need a tile of shared memory.
        for x in range(1, n):
            word = torch.where(key >= 32 * BLOCK * x, words[row, head // repeat, query, x], word)
        bit = (word >> ((key // BLOCK) % 32)) & 1
        return torch.where(bit == 1, score, float("-inf"))

    options = LONG_ROW_OPTIONS if t > LONG_ROW else None
    return flex_attention(
        q, k, v, score_mod=score_mod, block_mask=causal, enable_gqa=True, kernel_options=options
    )


class Attention(nn.Module):
    """One attention layer with head gates; `sparse` layers have three branches and no positions."""

    def __init__(self, c: SimpleNamespace, sparse: bool):
        super().__init__()
        self.c, self.sparse = c, sparse
        d, h, g, hd = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim

        def matrix(rows: int, columns: int, scale: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * (scale / math.sqrt(columns)) * 0.5)

        self.q_proj = matrix(h * hd, d)
        self.o_proj = matrix(d, h * hd, 0.3)
        self.q_norm = nn.Parameter(torch.full((hd,), 1.2))
        self.projections = ["q_proj"]
        for prefix in ("cmp_", "slc_", "win_") if sparse else ("",):
            self.projections += [prefix + "k_proj", prefix + "v_proj"]
            setattr(self, prefix + "k_proj", matrix(g * hd, d))
            setattr(self, prefix + "v_proj", matrix(g * hd, d))
            setattr(self, prefix + "k_norm", nn.Parameter(torch.full((hd,), 1.2)))
        self.gate_w1 = matrix(c.head_gate_dim, d, 2.0)
        self.gate_w2 = nn.Parameter(torch.randn(h, c.head_gate_dim) * 0.02)
        if sparse:
            self.branch_gate = nn.Parameter(torch.zeros(3 * h, d))
            self.phi_k, self.phi_v = Phi(c), Phi(c)

    def project(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values [B, T, heads, D] of all branches, in one product."""
        weights = [getattr(self, name) for name in self.projections]
        parts = F.linear(x, torch.cat(weights)).split([w.shape[0] for w in weights], -1)
        return [part.reshape(*x.shape[:2], -1, self.c.head_dim) for part in parts]

    def forward(self, x, cos, sin, window, causal, threshold, flex: bool, dtype: torch.dtype):
        """x [B, T, d] normalised -> output [B, T, d], gates [B, T, H] before the threshold.

        window, causal: block masks of the flex way; dtype: of its products.
        """
        c = self.c
        b, t, _ = x.shape
        q, *branches, wk, wv = self.project(x)
        q = rms(q, self.q_norm, c.rms_norm_eps)
        wk = rms(wk, self.win_k_norm if self.sparse else self.k_norm, c.rms_norm_eps)
        if not self.sparse:
            q, wk = rotate(q, cos, sin), rotate(wk, cos, sin)
        q, wk = q.to(dtype).transpose(1, 2), wk.to(dtype).transpose(1, 2)
        wv = wv.to(dtype).transpose(1, 2)
        if flex:
            out = flex_attention(q, wk, wv, block_mask=window, enable_gqa=True)
        else:
            i = torch.arange(t, device=x.device)
            near = i[:, None] - i[None] < c.sliding_window
            out = naive_attention(q, wk, wv, (i[None] <= i[:, None]) & near)
        if self.sparse:
            out = self.mix_branches(x, q, branches, out, causal, flex, dtype)
        gate = torch.sigmoid(F.linear(F.silu(F.linear(x, self.gate_w1)), self.gate_w2).float())
        # Straight through the threshold: closed heads still learn.
        kept = gate + (gate * (gate >= threshold) - gate).detach()
        out = out.transpose(1, 2) * kept[..., None]
        return F.linear(out.reshape(b, t, -1), self.o_proj), gate

    def mix_branches(self, x, q, branches, window, causal, flex, dtype):
        """The three sparse branches, each under its gate of a token and head. [B, H, T, D]."""
        c = self.c
        ck, cv, sk, sv = branches
        compressed, p = self.compressed(q, ck, cv, dtype)
        with torch.no_grad():
            blocks = pick_blocks(
                p, c.nsa_num_selected_blocks, c.nsa_num_init_blocks, c.nsa_num_local_blocks
            )
        sk = rms(sk, self.slc_k_norm, c.rms_norm_eps).to(dtype).transpose(1, 2)
        sv = sv.to(dtype).transpose(1, 2)
        if flex:
            selected = flex_selected(q, sk, sv, blocks, causal)
        else:
            i = torch.arange(x.shape[1], device=x.device)
            mask = blocks.repeat_interleave(BLOCK, -1)[..., : len(i)] & (i[None] <= i[:, None])
            mask = mask.repeat_interleave(q.shape[1] // blocks.shape[1], 1)
            selected = naive_attention(q, sk, sv, mask)
        beta = torch.sigmoid(F.linear(x, self.branch_gate).float())
        beta = beta.reshape(*x.shape[:2], -1, 3).transpose(1, 2)
        mixed = beta[..., 0:1] * compressed + beta[..., 1:2] * selected
        return mixed + beta[..., 2:3] * window

    def compressed(self, q, ck, cv, dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The compressed branch [B, H, T, D] and probabilities summed by group [B, G, T, N]."""
        c = self.c
        b, h, t, hd = q.shape
        g = c.num_key_value_heads
        k = rms(self.phi_k(ck), self.cmp_k_norm, c.rms_norm_eps).to(dtype)
        v = self.phi_v(cv).to(dtype)
        n = k.shape[2]
        scores = (q.reshape(b, g, (h // g) * t, hd) @ k.transpose(-1, -2)).float()
        scores = scores.view(b, g, h // g, t, n) / math.sqrt(hd)
        first = torch.arange(n, device=q.device) * c.nsa_compress_stride
        end = first + c.nsa_compress_block_size - 1
        visible = end[None] <= torch.arange(t, device=q.device)[:, None]
        p = torch.softmax(scores.masked_fill(~visible, NEGATIVE), -1) * visible
        out = p.to(dtype).view(b, g, (h // g) * t, n) @ v
        return out.view(b, h, t, hd), p.detach().sum(2)
