"""Attention layers with head gates: sliding windows, and the three sparse branches (NSA)."""

import torch
import torch.nn.functional as F

from abacus.reference.functions import Weights, attend, rms, rotate
from abacus.reference.options import Details, Options
from abacus.reference.selection import attend_selected, select_blocks

# A layer's cache: name -> [B, G, slots, D]; one slot a token, or one a compressed token.
Cache = dict[str, torch.Tensor]


class SlidingAttention:
    """Attention to the last `sliding_window` tokens, with rotary positions."""

    cached_per_token = ("window_keys", "window_values")
    cached_per_block = ()
    window = ""

    def __init__(self, config: dict, weights: Weights):
        self.config, self.weights = config, weights
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.eps = config["rms_norm_eps"]

    def new_cache(self, rows: int, slots: int, device: torch.device) -> Cache:
        """Zeros for `slots` tokens (a multiple of 64) of `rows` sequences."""
        shape = (rows, self.groups, slots, self.config["head_dim"])
        tokens = {name: torch.zeros(shape, device=device) for name in self.cached_per_token}
        shape = (rows, self.groups, slots // 16, self.config["head_dim"])
        blocks = {name: torch.zeros(shape, device=device) for name in self.cached_per_block}
        return tokens | blocks

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The projection `name` of x."""
        return F.linear(x, self.weights[name + ".weight"])

    def by_head(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The projection `name`, cut into heads: [B, C, heads, D]."""
        return self.linear(name, x).view(*x.shape[:2], -1, self.config["head_dim"])

    def normalised(self, name: str, norm: str, x: torch.Tensor) -> torch.Tensor:
        """by_head, each head normalised."""
        return rms(self.by_head(name, x), self.weights[norm + ".weight"], self.eps)

    def place(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Queries or keys with what the layer knows of positions."""
        return rotate(x, positions, self.config["rope_theta"])

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        options: Options,
        details: Details | None,
    ) -> torch.Tensor:
        """x [B, C, d] normalised, positions [B, C] -> [B, C, d]; fills the cache."""
        q = self.place(self.normalised("q_proj", "q_norm", x), positions)
        out = self.attended(q, x, positions, cache, options, details)
        inner = F.silu(self.linear("head_gate.down_proj", x))
        gate = torch.sigmoid(self.linear("head_gate.up_proj", inner))
        if details is not None:
            details.gates.append(gate)
        out = out * (gate * (gate >= options.gate_threshold))[..., None]
        return self.linear("o_proj", out.reshape(*x.shape[:2], -1))

    def attended(self, q, x, positions, cache, options, details) -> torch.Tensor:
        """What the heads see before their gates, [B, C, H, D]."""
        return self.attend_window(q, x, positions, cache)

    def attend_window(
        self, q: torch.Tensor, x: torch.Tensor, positions: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """Attention to the window; fills its part of the cache."""
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        keys = self.normalised(self.window + "k_proj", self.window + "k_norm", x)
        cache["window_keys"][rows, :, positions] = self.place(keys, positions)
        cache["window_values"][rows, :, positions] = self.by_head(self.window + "v_proj", x)
        size = self.config["sliding_window"]
        first, end = max(0, int(positions.min()) - size + 1), int(positions.max()) + 1
        t = torch.arange(first, end, device=x.device)
        visible = (t <= positions[..., None]) & (t > positions[..., None] - size)
        k, v = cache["window_keys"][:, :, first:end], cache["window_values"][:, :, first:end]
        return attend(q, k, v, visible[:, None, None])[0]


class SparseAttention(SlidingAttention):
    """NSA: a window, compressed tokens, and the blocks that those say matter; no positions."""

    cached_per_token = (
        *SlidingAttention.cached_per_token,
        "raw_keys",
        "raw_values",
        "selected_keys",
        "selected_values",
    )
    cached_per_block = ("compressed_keys", "compressed_values")
    window = "win_"

    def place(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The sparse branches have no positions."""
        return x

    def attended(self, q, x, positions, cache, options, details) -> torch.Tensor:
        """The three branches, each under its gate of a token and head."""
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        window = self.attend_window(q, x, positions, cache)
        cache["raw_keys"][rows, :, positions] = self.by_head("cmp_k_proj", x)
        cache["raw_values"][rows, :, positions] = self.by_head("cmp_v_proj", x)
        cache["selected_keys"][rows, :, positions] = self.normalised("slc_k_proj", "slc_k_norm", x)
        cache["selected_values"][rows, :, positions] = self.by_head("slc_v_proj", x)
        self.compress(positions, cache)
        compressed, scores = self.attend_compressed(q, positions, cache)
        blocks = select_blocks(scores, positions, self.config, options.selected_blocks)
        if details is not None:
            details.selected.append(blocks)
        selected = attend_selected(
            q, cache["selected_keys"], cache["selected_values"], blocks, positions
        )
        beta = torch.sigmoid(self.linear("branch_gate", x)).view(*x.shape[:2], self.heads, 3, 1)
        return beta[..., 0, :] * compressed + beta[..., 1, :] * selected + beta[..., 2, :] * window

    def compress(self, positions: torch.Tensor, cache: Cache) -> None:
        """Writes the compressed tokens of the blocks that end inside the chunk."""
        rows = torch.arange(positions.shape[0], device=positions.device)
        if positions.shape[1] == 1:
            at = positions[:, 0]
            rows = torch.nonzero((at >= 31) & ((at - 31) % 16 == 0))[:, 0]
            block = (at[rows][:, None] - 31) // 16
        else:
            start, last = int(positions[0, 0]), int(positions[0, -1])
            first = max(0, -(-(start - 31) // 16))
            end = max(first, (last - 31) // 16 + 1)
            block = torch.arange(first, end, device=positions.device)
            block = block[None].expand(len(rows), -1)
        if block.numel() == 0:
            return
        tokens = block[..., None] * 16 + torch.arange(32, device=positions.device)
        raw_keys = cache["raw_keys"][rows[:, None, None], :, tokens]  # [B, blocks, 32, G, D]
        raw_values = cache["raw_values"][rows[:, None, None], :, tokens]
        keys = rms(self.phi("phi_k", raw_keys), self.weights["cmp_k_norm.weight"], self.eps)
        cache["compressed_keys"][rows[:, None], :, block] = keys
        cache["compressed_values"][rows[:, None], :, block] = self.phi("phi_v", raw_values)

    def phi(self, name: str, raw: torch.Tensor) -> torch.Tensor:
        """Raw keys or values of blocks [..., 32, G, D] -> one for each block [..., G, D]."""
        u = F.silu(self.linear(name + ".w1", raw + self.weights[name + ".position"][:, None]))
        return (torch.softmax(self.linear(name + ".w2", u), -3) * raw).sum(-3)

    def attend_compressed(
        self, q: torch.Tensor, positions: torch.Tensor, cache: Cache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The compressed branch [B, C, H, D] and probabilities summed by group [B, G, C, N]."""
        n = max(1, (int(positions.max()) + 1) // 16)
        end = torch.arange(n, device=q.device) * 16 + 31
        visible = end <= positions[..., None]
        some = visible.any(-1)  # before the first block ends, the branch gives zero
        mask = (visible | ~some[..., None])[:, None, None]
        k, v = cache["compressed_keys"][:, :, :n], cache["compressed_values"][:, :, :n]
        out, p = attend(q, k, v, mask)
        return out * some[..., None, None], p.sum(2) * some[:, None, :, None]
