"""Answers evaluation prompts with the reference and counts what is right.

Results of families go into one JSON file, which is kept up to date; the texts, with --texts, into
JSON lines in the form of models/abacus/eval/reference.jsonl.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from abacus.evaluation_set import LONG, Item, items
from abacus.paths import MODEL_DIR
from abacus.quantise import quantiser
from abacus.reference import Options, Reference
from abacus.step_checker import check_line
from abacus.tokenizer import Tokenizer

SHORT_LIMIT, LONG_LIMIT = 450, 60


def split_answer(text: str) -> tuple[list[str], str]:
    """The steps of a text, and the answer after them."""
    steps, _, answer = text.rpartition("</think>")
    lines = [line for line in steps.replace("<think>", "").split("\n") if line]
    return lines, answer.strip()


def answer_all(
    reference: Reference,
    tokenizer: Tokenizer,
    prompts: list[Item],
    options: Options,
    limit: int,
    batch: int,
) -> list[list[int]]:
    """Greedy answers in the order of `prompts`; questions of like length share a batch."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].question))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        ids = [tokenizer.encode_prompt(prompts[i].system, prompts[i].question) for i in chosen]
        answers = reference.generate(ids, limit=limit, options=options, chunk=256)
        for i, answer in zip(chosen, answers):
            out[i] = answer
    return out


def score(prompts: list[Item], texts: list[str]) -> dict:
    """Exact answers, exact step lists, and step lines that are true, false or unchecked."""
    exact = same_steps = 0
    lines = {True: 0, False: 0, None: 0}
    wrong = []
    for item, text in zip(prompts, texts):
        steps, answer = split_answer(text)
        exact += answer == item.answer
        same_steps += steps == (item.steps or [])
        for step in steps:
            lines[check_line(step, item.question)] += 1
        if answer != item.answer:
            wrong.append(
                {"question": item.question[-300:], "want": item.answer, "got": text[-600:]}
            )
    return {
        "n": len(prompts),
        "exact": exact / len(prompts),
        "same_steps": same_steps / len(prompts),
        "lines_true": lines[True],
        "lines_false": lines[False],
        "lines_unchecked": lines[None],
        "wrong": wrong[:25],
    }


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, default=MODEL_DIR)
    add("--families", required=True, help="by commas")
    add("--count", type=int, default=500, help="prompts of a family")
    add("--out", type=Path, required=True, help="JSON of results")
    add("--texts", type=Path, help="JSON lines to append the texts to")
    add("--threshold", type=float, default=0.3, help="of the head gates")
    add("--selected-blocks", type=int, default=8, help="0: all")
    add("--bits", type=int, help="quantise the weights to so many bits")
    add("--group", type=int, default=0, help="columns that share a scale; 0: the whole row")
    add("--batch", type=int, default=125)
    add("--threads", type=int, default=1)
    add("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer(args.model / "tokenizer.json")
    adjust = {"adjust": quantiser(args.bits, args.group)} if args.bits else {}
    reference = Reference(args.model, args.device, **adjust)
    options = Options(args.threshold, args.selected_blocks or None)
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for family in args.families.split(","):
        start = time.monotonic()
        prompts = items(family, args.count, tokenizer)
        long = family in LONG
        limit, batch = (LONG_LIMIT, 1) if long else (SHORT_LIMIT, args.batch)
        ids = answer_all(reference, tokenizer, prompts, options, limit, batch)
        texts = [tokenizer.decode(x) for x in ids]
        results[family] = score(prompts, texts)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        if args.texts:
            with args.texts.open("a") as file:
                for i, (item, text, x) in enumerate(zip(prompts, texts, ids)):
                    exact = split_answer(text)[1] == item.answer
                    name = f"{family}-{i:03d}"
                    line = {"id": name, "exact": exact, "text": text, "tokens": len(x)}
                    file.write(json.dumps(line) + "\n")
        print(
            f"{family}: exact {results[family]['exact']:.4f} of {len(prompts)}, "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
