"""The whole model: embedding, layers, heads, and greedy generation."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from abacus.checkpoint import load_checkpoint
from abacus.reference.attention import Cache, SlidingAttention, SparseAttention
from abacus.reference.experts import Dense, Experts
from abacus.reference.functions import Weights, rms, subtree
from abacus.reference.options import Details, Options
from abacus.tokenizer import END

DEFAULT_OPTIONS = Options()


class Layer:
    """Attention and feed-forward network, each behind a norm and added to the residual stream."""

    def __init__(self, config: dict, weights: Weights, sparse: bool, experts: bool):
        self.eps, self.weights = config["rms_norm_eps"], weights
        kind = SparseAttention if sparse else SlidingAttention
        self.attention = kind(config, subtree(weights, "self_attn."))
        mlp = subtree(weights, "mlp.")
        self.mlp = Experts(config, mlp) if experts else Dense(mlp)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        options: Options,
        details: Details | None,
    ) -> torch.Tensor:
        """x [B, C, d], positions [B, C] -> [B, C, d]."""
        n = rms(x, self.weights["input_layernorm.weight"], self.eps)
        x = x + self.attention.forward(n, positions, cache, options, details)
        n = rms(x, self.weights["post_attention_layernorm.weight"], self.eps)
        return x + self.mlp.forward(n, details)


class Reference:
    """Abacus in fp32."""

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        weights: Weights | None = None,
        adjust: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, weight: weight,
    ):
        """Reads config.json and, unless `weights` are given, the checkpoint in `folder`.

        `adjust(name, fp32 weight)` may change each weight, to quantise it for example.
        """
        self.config = c = json.loads((folder / "config.json").read_text())
        self.device = torch.device(device)
        stored = load_checkpoint(folder) if weights is None else weights
        self.weights = {k: adjust(k, w.float().to(self.device)) for k, w in stored.items()}
        self.layers = [
            self._layer(i, bool(c["nsa_layers"][i]), i >= c["first_k_dense_replace"])
            for i in range(c["num_hidden_layers"])
        ]
        self.mtp_layer = self._layer(c["num_hidden_layers"], sparse=False, experts=False)

    def _layer(self, index: int, sparse: bool, experts: bool) -> Layer:
        weights = subtree(self.weights, f"model.layers.{index}.")
        return Layer(self.config, weights, sparse, experts)

    def new_caches(self, rows: int, tokens: int, with_mtp: bool = False) -> list[Cache]:
        """Empty caches of all layers for `rows` sequences of up to `tokens` tokens."""
        slots = -(-max(tokens, 64) // 64) * 64
        layers = self.layers + ([self.mtp_layer] if with_mtp else [])
        return [layer.attention.new_cache(rows, slots, self.device) for layer in layers]

    @torch.no_grad()
    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        caches: list[Cache],
        options: Options,
        details: Details | None = None,
    ) -> torch.Tensor:
        """tokens, positions [B, C] -> the hidden state after the last layer [B, C, d]."""
        x = F.embedding(tokens, self.weights["model.embed_tokens.weight"])
        if details is not None:
            details.hidden.append(x)
        for layer, cache in zip(self.layers, caches):
            x = layer.forward(x, positions, cache, options, details)
            if details is not None:
                details.hidden.append(x)
        return x

    def logits(self, x: torch.Tensor, norm: str = "model.norm.weight") -> torch.Tensor:
        """Logits of hidden states [..., d] behind the norm of that name."""
        n = rms(x, self.weights[norm], self.config["rms_norm_eps"])
        return F.linear(n, self.weights["lm_head.weight"])

    def early_exit_logits(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """Logits of the early head behind `layer`, from the hidden states after it."""
        return self.logits(x, f"model.early_exit.{layer}.norm.weight")

    @torch.no_grad()
    def mtp_logits(
        self,
        hidden: torch.Tensor,
        next_tokens: torch.Tensor,
        positions: torch.Tensor,
        caches: list[Cache],
        options: Options,
    ) -> torch.Tensor:
        """From the hidden states [B, C, d] at t and the tokens at t+1, logits for those at t+2."""
        prefix = f"model.layers.{self.config['num_hidden_layers']}."
        eps = self.config["rms_norm_eps"]
        embedded = F.embedding(next_tokens, self.weights["model.embed_tokens.weight"])
        pair = [
            rms(embedded, self.weights[prefix + "enorm.weight"], eps),
            rms(hidden, self.weights[prefix + "hnorm.weight"], eps),
        ]
        z = F.linear(torch.cat(pair, -1), self.weights[prefix + "eh_proj.weight"])
        z = self.mtp_layer.forward(z, positions, caches[-1], options, None)
        return self.logits(z, prefix + "shared_head.norm.weight")

    def _prefill(
        self, prompts: list[list[int]], caches: list[Cache], options: Options, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden state of each prompt's last token [B, d], and the lengths [B]."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        ids = ids.to(self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        last = torch.zeros(len(prompts), self.config["hidden_size"], device=self.device)
        for start in range(0, longest, chunk):
            end = min(longest, start + chunk)
            positions = torch.arange(start, end, device=self.device)[None].expand(len(prompts), -1)
            x = self.forward(ids[:, start:end], positions, caches, options)
            rows = torch.nonzero((lengths - 1 >= start) & (lengths - 1 < end))[:, 0]
            last[rows] = x[rows, lengths[rows] - 1 - start]
        return last, lengths

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[int]],
        limit: int = 400,
        options: Options = DEFAULT_OPTIONS,
        stop: int | None = END,
        chunk: int = 512,
    ) -> list[list[int]]:
        """Greedy continuations of at most `limit` tokens, without the stop token."""
        caches = self.new_caches(len(prompts), max(map(len, prompts)) + limit + 1)
        last, positions = self._prefill(prompts, caches, options, chunk)
        out: list[list[int]] = [[] for _ in prompts]
        rows, done = list(range(len(prompts))), [False] * len(prompts)
        top = caches[0]["window_keys"].shape[2] - 1
        logits = self.logits(last)
        for step in range(limit):
            tokens = logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist()):
                if token == stop:
                    done[row] = True
                elif not done[row]:
                    out[row].append(token)
            live = [k for k, row in enumerate(rows) if not done[row]]
            if not live or step == limit - 1:
                break
            # Finished rows idle until a quarter of the batch has finished.
            if len(live) <= 0.75 * len(rows):
                keep = torch.tensor(live, device=self.device)
                tokens, positions, rows = tokens[keep], positions[keep], [rows[k] for k in live]
                caches = [{name: t[keep] for name, t in cache.items()} for cache in caches]
            x = self.forward(tokens[:, None], positions[:, None], caches, options)
            logits = self.logits(x[:, 0])
            positions = (positions + 1).clamp(max=top)
        return out
