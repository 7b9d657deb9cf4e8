"""Abacus for training: fp32 master weights, one forward pass over whole sequences."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from abacus.training.attention import Attention, rms, rope_tables
from abacus.training.feed_forward import Dense, Experts
from abacus.training.names import layer_tensors

try:
    from torch.nn.attention.flex_attention import create_block_mask
except ImportError:  # an old PyTorch has only the naive way
    create_block_mask = None


def load_config(path: Path) -> SimpleNamespace:
    """config.json as attributes."""
    return SimpleNamespace(**json.loads(path.read_text()))


class Layer(nn.Module):
    """Attention and feed-forward network, each behind a norm and added to the residual stream."""

    def __init__(self, c: SimpleNamespace, sparse: bool, experts: bool):
        super().__init__()
        self.eps, self.gate_threshold = c.rms_norm_eps, c.head_gate_threshold
        self.norm1 = nn.Parameter(torch.ones(c.hidden_size))
        self.norm2 = nn.Parameter(torch.ones(c.hidden_size))
        self.attn = Attention(c, sparse)
        self.mlp = Experts(c) if experts else Dense(c)

    def forward(self, x, live, cos, sin, window, causal, threshold, flex, dtype):
        """live [B, T]: 1 for tokens that are not padding.

        Returns x, [mean gate, share closed at the model's threshold], loads of experts.
        """
        n = rms(x, self.norm1, self.eps)
        a, gate = self.attn(n, cos, sin, window, causal, threshold, flex, dtype)
        x = x + a
        y, load = self.mlp(rms(x, self.norm2, self.eps))
        gates = live.sum() * gate.shape[-1]
        closed = gate.detach() < self.gate_threshold
        stats = torch.stack(
            [(gate * live[..., None]).sum() / gates, (closed * live[..., None]).sum() / gates]
        )
        return x + y, stats, load


def head_loss(x, norm, head, target, weight, eps):
    """Mean cross-entropy over `weight`, and the share of those tokens that argmax gets right."""
    logits = F.linear(rms(x, norm, eps), head).float()
    loss = torch.logsumexp(logits, -1) - logits.gather(-1, target[..., None])[..., 0]
    n = weight.sum() + 1e-6
    with torch.no_grad():
        hit = ((logits.argmax(-1) == target) * weight).sum() / n
    return (loss * weight).sum() / n, hit


class Abacus(nn.Module):
    """The whole model; `use_flex` switches from the naive way to the fast one on CUDA."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.c = c
        d = c.hidden_size
        self.embed = nn.Parameter(torch.randn(c.vocab_size, d) * 0.1)
        self.head = nn.Parameter(torch.randn(c.vocab_size, d) * 0.02)
        self.layers = nn.ModuleList(
            Layer(c, bool(c.nsa_layers[i]), i >= c.first_k_dense_replace)
            for i in range(c.num_hidden_layers)
        )
        self.norm = nn.Parameter(torch.ones(d))
        self.exit_norms = nn.ParameterList(
            [nn.Parameter(torch.ones(d)) for _ in c.early_exit_layers]
        )
        self.mtp_enorm = nn.Parameter(torch.ones(d))
        self.mtp_hnorm = nn.Parameter(torch.ones(d))
        self.mtp_proj = nn.Parameter(torch.randn(d, 2 * d) / math.sqrt(2 * d) * 0.5)
        self.mtp_layer = Layer(c, sparse=False, experts=False)
        self.mtp_norm = nn.Parameter(torch.ones(d))
        self.flex, self.dtype = False, torch.float32
        self.loss_fn = head_loss
        self._tables: dict = {}

    def use_flex(self) -> None:
        """Compiled layers with flex attention in bf16."""
        self.flex, self.dtype = True, torch.bfloat16
        for layer in [*self.layers, self.mtp_layer]:
            layer.compile(dynamic=False)
        self.loss_fn = torch.compile(head_loss, dynamic=False)

    def tables(self, tokens: int, device: torch.device) -> tuple:
        """Rotary cosines and sines, and flex's window and causal masks, made once for a length."""
        key = (tokens, self.flex)
        if key not in self._tables:
            c = self.c
            cos, sin = rope_tables(tokens, c.head_dim, c.rope_theta, device)
            window = causal = None
            if self.flex:

                def in_window(b, h, q, k):
                    return (k <= q) & (q - k < c.sliding_window)

                def not_later(b, h, q, k):
                    return k <= q

                window = create_block_mask(in_window, None, None, tokens, tokens, device=device)
                causal = create_block_mask(not_later, None, None, tokens, tokens, device=device)
            self._tables[key] = (cos, sin, window, causal)
        return self._tables[key]

    def hidden(self, tokens: torch.Tensor, threshold: torch.Tensor):
        """Hidden states after each layer, gate statistics [layers, 2], loads [MoE layers, E]."""
        tables = self.tables(tokens.shape[1], tokens.device)
        live = (tokens != self.c.pad_token_id).float()
        x = F.embedding(tokens, self.embed)
        states, stats, loads = [], [], []
        for layer in self.layers:
            x, stat, load = layer(x, live, *tables, threshold, self.flex, self.dtype)
            states.append(x)
            stats.append(stat)
            if load is not None:
                loads.append(load)
        return states, torch.stack(stats), torch.stack(loads)

    def losses(self, tokens: torch.Tensor, weight: torch.Tensor, threshold: torch.Tensor):
        """tokens [B, T]; weight [B, T]: 1 where the token is a target.

        Returns losses and accuracies by name, gate statistics, expert loads.
        """
        c, eps = self.c, self.c.rms_norm_eps
        states, stats, loads = self.hidden(tokens, threshold)
        next1, weight1 = torch.roll(tokens, -1, 1), torch.roll(weight, -1, 1)
        weight1[:, -1] = 0
        out = {}

        def add(name, x, norm, target, target_weight):
            loss, hit = self.loss_fn(x, norm, self.head, target, target_weight, eps)
            out[name], out[name + "_acc"] = loss, hit

        add("main", states[-1], self.norm, next1, weight1)
        for layer, norm in zip(c.early_exit_layers, self.exit_norms):
            add(f"exit{layer}", states[layer], norm, next1, weight1)
        embedded = rms(F.embedding(next1, self.embed), self.mtp_enorm, eps)
        z = torch.cat([embedded, rms(states[-1], self.mtp_hnorm, eps)], -1)
        live = (tokens != c.pad_token_id).float()
        tables = self.tables(tokens.shape[1], tokens.device)
        z = F.linear(z, self.mtp_proj).float()
        z, _, _ = self.mtp_layer(z, live, *tables, threshold, self.flex, self.dtype)
        next2, weight2 = torch.roll(tokens, -2, 1), torch.roll(weight, -2, 1)
        weight2[:, -2:] = 0
        add("mtp", z, self.mtp_norm, next2, weight2)
        return out, stats, loads

    def tensors(self) -> dict[str, torch.Tensor]:
        """Names on disk -> views of the parameters."""
        out = {
            "model.embed_tokens.weight": self.embed,
            "lm_head.weight": self.head,
            "model.norm.weight": self.norm,
        }
        for layer, norm in zip(self.c.early_exit_layers, self.exit_norms):
            out[f"model.early_exit.{layer}.norm.weight"] = norm
        for i, layer in enumerate(self.layers):
            out |= layer_tensors(f"model.layers.{i}.", layer)
        prefix = f"model.layers.{self.c.num_hidden_layers}."
        out[prefix + "enorm.weight"] = self.mtp_enorm
        out[prefix + "hnorm.weight"] = self.mtp_hnorm
        out[prefix + "eh_proj.weight"] = self.mtp_proj
        out[prefix + "shared_head.norm.weight"] = self.mtp_norm
        return out | layer_tensors(prefix, self.mtp_layer)

    def export(self) -> dict[str, torch.Tensor]:
        """Names on disk -> fp32 tensors on the CPU."""
        return {k: v.detach().float().cpu().contiguous() for k, v in self.tensors().items()}

    @torch.no_grad()
    def load(self, stored: dict[str, torch.Tensor]) -> None:
        """Takes the weights of a checkpoint, which must hold exactly this model's tensors."""
        views = self.tensors()
        if views.keys() != stored.keys():
            raise ValueError(f"only one side has {sorted(views.keys() ^ stored.keys())}")
        for name, view in views.items():
            view.copy_(stored[name].to(view.device, view.dtype))
