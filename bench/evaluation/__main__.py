"""Asks evaluation prompts of a server and compares the answers.

    bench/eval models/abacus/eval/*.jsonl --reference models/abacus/eval/reference.jsonl
    bench/eval models/abacus/eval/addsub.jsonl --target 127.0.0.1:8470 --limit 20 --gate 0.5

Without --target it starts `troupe serve` for itself. An answer is exact when the text after the
reasoning equals the prompt's answer. Exit codes: 0 well, 1 a call failed or a share is under its
threshold, 2 wrong arguments or files, 3 no server.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from evaluation.client import ROOT, Settings, ask_all, parse_gate
from evaluation.prompts import FormatError, Prompt, read_prompts, read_reference
from evaluation.report import Report, shortfalls, summarise, table
from evaluation.server import StartError, running_server, serve_command


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text}: wanted a share from 0 to 1")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"{text}: wanted 1 or more")
    return value


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench/eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE.jsonl", help="prompts")
    add("--reference", type=Path, help="texts to compare with, prompt by prompt: id, text")
    add("--limit", type=_at_least_one, help="only the first so many prompts of each file")
    add("--concurrency", type=_at_least_one, default=16, help="calls at a time (16)")
    add("--max-tokens", type=_at_least_one, default=450, help="of an answer (450)")
    add("--gate", type=parse_gate, help="off, adaptive or a threshold; else the server's own")
    add("--no-cache", action="store_true", help="neither use nor fill the cross-request cache")
    add("--timeout-s", type=float, default=600.0, help="of one call (600)")
    add("--min-exact", type=_share, help="fail where the families' mean is lower")
    add("--min-reference-equal", type=_share, help="fail where a lower share of texts is equal")
    add("-o", "--output", choices=["text", "json"], default="text")
    add("--target", help="HOST:PORT of a running server")
    add("--troupe", type=Path, default=ROOT / "build/release/cli/troupe", help="program to start")
    add("--model", type=Path, default=ROOT / "models/abacus", help="folder that it serves")
    add("--dtype", choices=["f32", "bf16"], default="bf16", help="of its weights (bf16)")
    add("--quantize", default="none", help="what its weights become, as of troupe serve (none)")
    return parser


def read_files(files: list[Path], limit: int | None) -> list[Prompt]:
    """The prompts of all files. A reference among them (by a wildcard) is no prompt file."""
    prompts = [p for f in files if f.name != "reference.jsonl" for p in read_prompts(f, limit)]
    if not prompts:
        raise FormatError("the files hold no prompt")
    return prompts


def evaluate(args: argparse.Namespace, prompts: list[Prompt], reference: dict[str, str]) -> Report:
    """Asks all prompts, of a running server or of one started here."""
    settings = Settings(args.max_tokens, args.gate, not args.no_cache)

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == len(prompts) else ""
            print(f"\r{done} of {len(prompts)} prompts", end=end, file=sys.stderr, flush=True)

    if args.target:
        server = contextlib.nullcontext(args.target)
    else:
        server = running_server(
            serve_command(args.troupe, args.model, args.dtype, args.quantize)
        )
    with server as target:
        replies, seconds = ask_all(
            target, prompts, settings, args.concurrency, args.timeout_s, progress
        )
    return summarise(prompts, replies, reference, seconds)


def main() -> int:
    """Command line; returns the exit code."""
    args = make_parser().parse_args()
    try:
        prompts = read_files(args.files, args.limit)
        reference = read_reference(args.reference) if args.reference else {}
        report = evaluate(args, prompts, reference)
    except (FormatError, OSError) as error:
        print(f"bench/eval: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"bench/eval: {error}", file=sys.stderr)
        return 3
    print(json.dumps(report.to_json(), indent=1) if args.output == "json" else table(report))
    found = shortfalls(report, args.min_exact, args.min_reference_equal)
    for line in found:
        print(f"bench/eval: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
