"""Trains Abacus on one GPU for a number of minutes or steps.

Reads config.json and tokenizer.json of --model, writes checkpoints and train.log to --out. The
released weights took 25 minutes (17,098 steps) on one H100.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch

from abacus.checkpoint import load_checkpoint, save_checkpoint
from abacus.paths import MODEL_DIR
from abacus.training.model import Abacus, load_config
from abacus.training.packing import Feed
from abacus.training.schedule import draw_threshold, learning_rate
from abacus.training.trainer import Trainer
from abacus.training.validation import Validation

LONG_FROM = 0.40
LONG_EVERY = 4


class Log:
    """Lines with the seconds since the start, on the terminal and in train.log."""

    def __init__(self, path: Path):
        self.start = time.monotonic()
        self.file = path.open("a")

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self.start:7.1f}] {text}"
        print(line, flush=True)
        print(line, file=self.file, flush=True)


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--model", type=Path, default=MODEL_DIR, help="folder of config.json and tokenizer.json")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    add("--rows", type=int, default=64, help="rows of a batch")
    add("--tokens", type=int, default=1024, help="tokens of a row")
    add("--long-rows", type=int, default=8, help="every 4th batch from 40 %% on; 0: none")
    add("--long-tokens", type=int, default=8192)
    add("--lr", type=float, default=3e-3, help="Muon's")
    add("--adam-lr", type=float, default=3e-3)
    add("--closed", type=float, default=0.40, help="share of heads to close")
    add("--seed", type=int, default=1)
    add("--validate-at", default="0.12,0.6,0.86", help="progress, by commas; empty: never")
    add("--workers", type=int, default=7, help="processes that make short rows")
    add("--device", default="cuda")
    add("--init", type=Path, help="a checkpoint to go on from")
    return parser.parse_args()


def make_trainer(args: argparse.Namespace, device: torch.device) -> Trainer:
    """The model, new or from a checkpoint, ready to train."""
    torch.manual_seed(args.seed)
    model = Abacus(load_config(args.model / "config.json")).to(device)
    if args.init:
        model.load(load_checkpoint(args.init))
    if device.type == "cuda":
        # Layers share their code, and each is compiled for both lengths of rows.
        torch._dynamo.config.recompile_limit = 64
        model.use_flex()
    return Trainer(model, device, args.lr, args.adam_lr, args.closed)


def make_feeds(args: argparse.Namespace) -> tuple[Feed, Feed | None]:
    """Short rows, and long ones if they are wanted."""
    tokenizer, seed = args.model / "tokenizer.json", args.seed * 7919
    short = Feed(tokenizer, seed + 1, args.tokens, args.rows, False, args.workers)
    if not args.long_rows:
        return short, None
    workers = max(1, args.workers // 2)
    long = Feed(tokenizer, seed + 2, args.long_tokens, args.long_rows, True, workers)
    return short, long


def train(args: argparse.Namespace, log: Log) -> None:
    """The training loop."""
    device = torch.device(args.device)
    short, long = make_feeds(args)
    trainer = make_trainer(args, device)
    validation = Validation(args.model)
    validate_at = sorted(float(x) for x in args.validate_at.split(",") if x)
    rng = random.Random(args.seed)
    trainer.step(short.next(), 0.0, 0.3, 0.0, update=False)  # compiles
    log(f"compiled; {sum(p.numel() for p in trainer.model.parameters())} parameters")
    start, step, tokens = time.monotonic(), 0, 0
    while True:
        elapsed = time.monotonic() - start
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        if progress >= 1:
            break
        is_long = long is not None and progress >= LONG_FROM and step % LONG_EVERY == 0
        batch = (long if is_long else short).next()
        factor = learning_rate(progress, step)
        figures = trainer.step(batch, factor, draw_threshold(rng), progress)
        step += 1
        tokens += batch.size
        if step % 50 in (0, 1):  # a long batch and a short one
            values = " ".join(f"{k} {float(v):.4f}" for k, v in figures.items())
            rate = tokens / (time.monotonic() - start)
            log(f"{step} progress {progress:.3f} {'long ' * is_long}{values} {rate:.0f} tokens/s")
            if not math.isfinite(float(figures["main"])):
                raise FloatingPointError(f"the loss is not finite at step {step}")
        if validate_at and progress >= validate_at[0]:
            save_checkpoint(
                args.out / f"p{int(100 * validate_at.pop(0)):03d}", trainer.model.export()
            )
            log(f"against the reference: {validation.agreement(trainer, short.next())}")
            log(f"exact answers: {json.dumps(validation.exact(trainer.model, device))}")
    save_checkpoint(args.out / "final", trainer.model.export())
    log(f"done: {step} steps, {tokens} tokens, {time.monotonic() - start:.0f} s")
    for feed in (short, long):
        if feed is not None:
            feed.stop()


def main() -> None:
    """Command line."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args, Log(args.out / "train.log"))


if __name__ == "__main__":
    main()
