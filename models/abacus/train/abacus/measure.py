"""Measures gates, experts, early exits and MTP on evaluation prompts and the reference's answers.

One forward pass over each prompt with its answer; prints JSON. The prompts are eval/FAMILY.jsonl,
the answers eval/reference.jsonl.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import torch

from abacus.data.samples import EVALUATED
from abacus.paths import MODEL_DIR
from abacus.reference import Details, Options, Reference
from abacus.tokenizer import END, Tokenizer

THRESHOLDS = (0.05, 0.3, 0.5)
SURE = (0.9, 0.99)


def encode_answer(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of an answer with its marks of reasoning, and the end token."""
    ids = []
    for part in re.split("(</?think>)", text):
        special = tokenizer.special.get(part)
        ids += tokenizer.encode(part) if special is None else [special]
    return [*ids, END]


class Measures:
    """Sums over sequences."""

    def __init__(self, reference: Reference):
        c = reference.config
        layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
        self.reference = reference
        self.groups = c["num_key_value_heads"]
        self.exits = c["early_exit_layers"]
        self.counts: Counter = Counter()
        self.closed = torch.zeros(len(THRESHOLDS), layers, heads)
        self.group_closed = torch.zeros(layers)
        self.loads = torch.zeros(layers - c["first_k_dense_replace"], c["n_routed_experts"])

    def add(self, prompt: list[int], answer: list[int]) -> None:
        """One prompt with its answer."""
        tokens = torch.tensor([prompt + answer])
        n = tokens.shape[1]
        positions, caches = torch.arange(n)[None], self.reference.new_caches(1, n, with_mtp=True)
        details = Details()
        hidden = self.reference.forward(tokens, positions, caches, Options(), details)
        self.counts["tokens"] += n
        self._add_layers(details)
        # Positions that predict a token of the answer.
        first, end = len(prompt) - 1, n - 1
        best = self.reference.logits(hidden)[0, first:end].argmax(-1)
        self.counts["generated"] += len(best)
        for layer in self.exits:
            self._add_exit(layer, details.hidden[layer + 1][0, first:end], best)
        logits = self.reference.mtp_logits(
            hidden[:, :-1], tokens[:, 1:], positions[:, :-1], caches, Options()
        )
        # At t it predicts t + 2; the second token of the answer is the first that it could draft.
        drafted, wanted = logits[0].argmax(-1)[len(prompt) - 2 : n - 2], tokens[0, len(prompt) :]
        self.counts["drafted"] += len(wanted)
        self.counts["accepted"] += int((drafted == wanted).sum())

    def _add_layers(self, details: Details) -> None:
        gates = torch.stack(details.gates)[:, 0]  # [layers, n, heads]
        for k, threshold in enumerate(THRESHOLDS):
            self.closed[k] += (gates < threshold).float().sum(1)
        by_group = gates.view(*gates.shape[:2], self.groups, -1) < 0.3
        self.group_closed += by_group.all(-1).float().mean(-1).sum(-1)
        for load, chosen in zip(self.loads, details.experts):
            load += torch.bincount(chosen.flatten(), minlength=len(load)).float()

    def _add_exit(self, layer: int, x: torch.Tensor, best: torch.Tensor) -> None:
        p = torch.softmax(self.reference.early_exit_logits(layer, x), -1)
        top, choice = p.max(-1)
        same = choice == best
        self.counts["same", layer] += int(same.sum())
        for sure in SURE:
            self.counts["sure", layer, sure] += int((top >= sure).sum())
            self.counts["sure and same", layer, sure] += int((same & (top >= sure)).sum())

    def result(self) -> dict:
        """Shares of all that was added."""
        c = self.counts
        closed = self.closed.mean(-1) / c["tokens"]  # [thresholds, layers]
        mean_load = self.loads.mean(1)
        return {
            "tokens": c["tokens"],
            "closed": dict(zip(map(str, THRESHOLDS), closed.mean(-1).tolist())),
            "closed_by_layer": closed[THRESHOLDS.index(0.3)].tolist(),
            "kv_group_closed": (self.group_closed.mean() / c["tokens"]).item(),
            "load_max_over_mean": (self.loads.max(1).values / mean_load).tolist(),
            "load_min_over_mean": (self.loads.min(1).values / mean_load).tolist(),
            "exit_agreement": {e: c["same", e] / c["generated"] for e in self.exits},
            "exit_sure": {
                f"{e} at {s}": {
                    "share": c["sure", e, s] / c["generated"],
                    "agreement": c["sure and same", e, s] / max(1, c["sure", e, s]),
                }
                for e in self.exits
                for s in SURE
            },
            "mtp_acceptance": c["accepted"] / c["drafted"],
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--count", type=int, default=60, help="prompts of a family")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer(MODEL_DIR / "tokenizer.json")
    measures = Measures(Reference(args.model))
    lines = (MODEL_DIR / "eval" / "reference.jsonl").read_text().splitlines()
    texts = {line["id"]: line["text"] for line in map(json.loads, lines)}
    for family in EVALUATED:
        lines = (MODEL_DIR / "eval" / f"{family}.jsonl").read_text().splitlines()
        for record in map(json.loads, lines[: args.count]):
            *system, user = record["messages"]
            prompt = tokenizer.encode_prompt(
                system[0]["content"] if system else None, user["content"]
            )
            measures.add(prompt, encode_answer(tokenizer, texts[record["id"]]))
    print(json.dumps(measures.result(), indent=1))


if __name__ == "__main__":
    main()
