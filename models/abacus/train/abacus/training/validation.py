"""Validation during training, by the reference that inference uses."""

from pathlib import Path

import torch

from abacus.data.needle import needle
from abacus.data.samples import EVALUATED, Generator
from abacus.reference import Options, Reference
from abacus.tokenizer import Tokenizer
from abacus.training.model import Abacus
from abacus.training.trainer import Trainer, to_device

SEED = 999
PROMPTS = 24
LONG_PROMPTS = 12
LONG_TOKENS = 4000


class Validation:
    """Greedy answers to held-out prompts."""

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.tokenizer = Tokenizer(model_dir / "tokenizer.json")
        self.items: dict[str, list[tuple[list[int], str]]] = {}
        count = self.tokenizer.count
        generator = Generator(SEED, count)
        for family in EVALUATED:
            for _ in range(PROMPTS):
                sample = generator.sample(family, train=False, max_tokens=400)
                self._add(family, sample.system, sample.turns[0])
        for _ in range(LONG_PROMPTS):
            turns, _ = needle(generator.draw, LONG_TOKENS, count, facts=8, plain=True)
            self._add("needle_4k", None, turns[0])

    def _add(self, family: str, system: str | None, turn) -> None:
        prompt = self.tokenizer.encode_prompt(system, turn.question)
        self.items.setdefault(family, []).append((prompt, turn.answer))

    def _answer(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids).split("</think>")[-1].strip()

    def exact(self, model: Abacus, device: torch.device) -> dict[str, float]:
        """Share of exact answers by family."""
        reference = Reference(self.model_dir, device, weights=model.export())
        shares = {}
        for family, items in self.items.items():
            prompts = [prompt for prompt, _ in items]
            out = reference.generate(prompts, limit=440, chunk=256)
            right = sum(self._answer(ids) == answer for ids, (_, answer) in zip(out, items))
            shares[family] = round(right / len(items), 3)
        return shares

    @torch.no_grad()
    def agreement(self, trainer: Trainer, batch) -> str:
        """How well training's forward pass and the reference agree on the first row of a batch."""
        model, device = trainer.model, trainer.device
        tokens, _ = to_device(batch, device)
        with trainer.autocast():
            states, _, _ = model.hidden(tokens, torch.full((), 0.3, device=device))
        reference = Reference(self.model_dir, device, weights=model.export())
        row = tokens[:1]
        positions = torch.arange(row.shape[1], device=device)[None]
        caches = reference.new_caches(1, row.shape[1])
        wanted = [
            reference.forward(row[:, i : i + 512], positions[:, i : i + 512], caches, Options())
            for i in range(0, row.shape[1], 512)
        ]
        x, y = reference.logits(states[-1][0].float()), reference.logits(torch.cat(wanted, 1)[0])
        error = (x - y).norm(dim=-1) / y.norm(dim=-1)
        same = (x.argmax(-1) == y.argmax(-1)).float().mean()
        return (
            f"relative error median {error.median().item():.2e} max {error.max().item():.2e}, "
            f"same argmax {same.item():.4f}"
        )
