"""The evaluation prompts: drawn from seeds that training never uses."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from abacus.data.needle import needle
from abacus.data.samples import EVALUATED, Generator
from abacus.paths import MODEL_DIR
from abacus.tokenizer import Tokenizer

SEED = 20260101
NEEDLE_FACTS = 8
# Long contexts: family -> tokens.
LONG = {"needle_1k": 1000, "needle_4k": 4000, "needle_16k": 16000, "needle_64k": 64000}
# Prompts written for each family; needle_64k is made when it is needed.
WRITTEN = dict.fromkeys(EVALUATED, 200) | {family: 20 for family in LONG if family != "needle_64k"}


class Item(NamedTuple):
    """One evaluation prompt with its answer and the generator's steps."""

    system: str | None
    question: str
    steps: list[str] | None
    answer: str
    # Of long contexts: how many facts, and where (0..1) the asked one lies.
    facts: int | None = None
    depth: float | None = None


def needle_items(seed: int, tokens: int, number: int, tokenizer: Tokenizer) -> Iterator[Item]:
    """`number` questions about texts of about `tokens` tokens."""
    generator = Generator(seed, tokenizer.count)
    for _ in range(number):
        turns, depths = needle(
            generator.draw, tokens, tokenizer.count, facts=NEEDLE_FACTS, plain=True
        )
        question, steps, answer, _ = turns[0]
        yield Item(None, question, steps, answer, NEEDLE_FACTS, round(depths[0], 3))


def items(family: str, number: int, tokenizer: Tokenizer, seed: int = SEED) -> list[Item]:
    """The first `number` prompts of a family."""
    seed += sum(map(ord, family)) * 1000
    if family in LONG:
        return list(needle_items(seed, LONG[family], number, tokenizer))
    generator = Generator(seed, tokenizer.count)
    out = []
    for _ in range(number):
        sample = generator.sample(family, train=False, max_tokens=1000)
        question, steps, answer, _ = sample.turns[0]
        out.append(Item(sample.system, question, steps, answer))
    return out


def record(family: str, index: int, item: Item, tokenizer: Tokenizer) -> dict:
    """A line of FAMILY.jsonl."""
    messages = [{"role": "user", "content": item.question}]
    if item.system:
        messages.insert(0, {"role": "system", "content": item.system})
    line = {
        "id": f"{family}-{index:03d}",
        "family": family,
        "messages": messages,
        "answer": item.answer,
        "steps": item.steps,
        "prompt_tokens": len(tokenizer.encode_prompt(item.system, item.question)),
    }
    if item.facts is not None:
        line |= {"facts": item.facts, "depth": item.depth}
    return line


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for FAMILY.jsonl")
    parser.add_argument("--tokenizer", type=Path, default=MODEL_DIR / "tokenizer.json")
    parser.add_argument("--seed", type=int, default=SEED, help="another one gives other prompts")
    args = parser.parse_args()
    tokenizer = Tokenizer(args.tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    for family, number in WRITTEN.items():
        with (args.out / f"{family}.jsonl").open("w") as file:
            for i, item in enumerate(items(family, number, tokenizer, args.seed)):
                file.write(json.dumps(record(family, i, item, tokenizer)) + "\n")


if __name__ == "__main__":
    main()
