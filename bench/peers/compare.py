"""Troupe, llama.cpp and transformers on one shape, in turns: tokens a second, and ratios.

See README.md beside this file.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PREFILL = (512, 4096)
DECODE = 64

# A peer's weights, and Troupe's that are compared with them.
PAIRS = (
    ("llama.cpp F16", "troupe bf16"),
    ("llama.cpp Q8_0", "troupe int8"),
    ("llama.cpp Q8_0", "troupe w8a8"),
    ("llama.cpp Q4_0", "troupe int4-g32"),
    ("llama.cpp Q4_0", "troupe int4-g64"),
    ("llama.cpp Q4_0", "troupe w4a8-g32"),
    ("torch bf16", "troupe bf16"),
    ("torch f32", "troupe f32"),
)

Figures = dict[str, float]  # tokens a second by "prefill N" and "decode"


def output(command: list, **environment: str) -> str:
    """stdout of a command; its stderr where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")
    return done.stdout


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.shape = ROOT / "bench/shapes" / arguments.shape
        self.folder = arguments.folder
        self.troupe = arguments.troupe
        self.versions: dict[str, str] = {}

    def engines(self) -> dict[str, Callable[[], Figures]]:
        engines: dict[str, Callable[[], Figures]] = {}
        for name in ("F16", "Q8_0", "Q4_0"):
            engines[f"llama.cpp {name}"] = lambda name=name: self.llama(name)
        for dtype in ("bf16", "f32"):
            engines[f"torch {dtype}"] = lambda dtype=dtype: self.torch(dtype)
            engines[f"troupe {dtype}"] = lambda dtype=dtype: self.troupe_bench("--dtype", dtype)
        if "--quantize" in output([self.troupe, "bench", "--help"]):
            for name in ("int8", "int4-g32", "int4-g64", "w8a8", "w4a8-g32"):
                engines[f"troupe {name}"] = lambda name=name: self.troupe_bench("--quantize", name)
        only = self.arguments.only
        return {k: v for k, v in engines.items() if not only or any(o in k for o in only)}

    # ---- llama.cpp

    def gguf(self, kind: str) -> pathlib.Path:
        """Random weights of the shape, made once."""
        path = self.folder / f"{self.shape.name}-{kind}.gguf"
        if path.exists():
            return path
        part = path.with_suffix(".part")
        if kind == "F16":
            output([sys.executable, HERE / "make_gguf.py", self.shape, part])
        else:
            output([self.folder / "bin/llama-quantize", self.gguf("F16"), part, kind])
        return part.rename(path)

    def llama(self, kind: str) -> Figures:
        base = [self.folder / "bin/llama-bench", "-m", self.gguf(kind), "-o", "json", "-r", 1]
        base += ["-t", self.arguments.threads]
        lengths = ",".join(map(str, PREFILL))
        runs = json.loads(output([*base, "-p", lengths, "-n", 0]))
        runs += json.loads(output([*base, "-p", 0, "-n", DECODE, "-d", PREFILL[0]]))
        self.versions["llama.cpp"] = f"build {runs[0]['build_number']} {runs[0]['build_commit']}"
        figures = {f"prefill {run['n_prompt']}": run["avg_ts"] for run in runs if run["n_prompt"]}
        return figures | {"decode": next(run["avg_ts"] for run in runs if run["n_gen"])}

    # ---- transformers

    def torch(self, dtype: str) -> Figures:
        command = [sys.executable, HERE / "torch_bench.py", self.shape, "--dtype", dtype]
        command += ["--threads", self.arguments.threads, "--decode", DECODE, "--prefill", *PREFILL]
        answer = json.loads(output(command))
        self.versions["torch"] = answer["version"]
        return answer["tokens_per_s"]

    # ---- Troupe

    def troupe_bench(self, *flags: str) -> Figures:
        figures: Figures = {}
        for tokens in PREFILL:
            out_tokens = DECODE + 1 if tokens == PREFILL[0] else 1
            command = [self.troupe, "bench", "--model", self.shape, "--load-format", "dummy"]
            command += ["--threads", self.arguments.threads, "--concurrency", 1, "--requests", 2]
            command += ["--prompt-tokens", tokens, "--output-tokens", out_tokens, "-o", "json"]
            command += ["--max-batch-size", 1, "--temperature", 0, *flags]
            report = json.loads(output(command))["groups"]["all"]
            # Two requests: the better one, as the first one's pages are new to the machine.
            figures[f"prefill {tokens}"] = tokens / report["ttft_ms"]["min"] * 1e3
            if out_tokens > 1:
                figures["decode"] = 1e3 / report["tpot_ms"]["min"]
        self.versions["troupe"] = output([self.troupe, "--version"]).strip()
        return figures


def median(rounds: list[Figures]) -> Figures:
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def print_tables(results: dict[str, list[Figures]]) -> None:
    columns = [f"prefill {n}" for n in PREFILL] + ["decode"]
    medians = {name: median(rounds) for name, rounds in results.items()}
    print("\n| engine | " + " | ".join(f"{c}, tokens/s" for c in columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for name, figures in medians.items():
        print(f"| {name} | " + " | ".join(f"{figures[c]:.1f}" for c in columns) + " |")
    print("\n| Troupe against | " + " | ".join(columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for peer, own in PAIRS:
        if peer not in medians or own not in medians:
            continue
        ratios = [medians[own][c] / medians[peer][c] for c in columns]
        print(f"| {own} / {peer} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/peers/run", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="what build_llama_cpp made")
    parser.add_argument("--shape", default="qwen3-0.6b", help="a folder of bench/shapes")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="engines whose name has this; repeated")
    parser.add_argument("--troupe", type=pathlib.Path, default=ROOT / "build/release/cli/troupe")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    engines = bench.engines()
    results: dict[str, list[Figures]] = {name: [] for name in engines}
    for number in range(arguments.rounds):
        for name, measure in engines.items():
            figures = measure()
            results[name].append(figures)
            shown = ", ".join(f"{key} {value:.1f}" for key, value in figures.items())
            print(f"round {number + 1}: {name}: {shown}", flush=True)
    (arguments.folder / "results.json").write_text(
        json.dumps({"versions": bench.versions, "tokens_per_s": results}, indent=2)
    )
    print_tables(results)
    print(f"\n{arguments.shape}, {arguments.threads} threads, median of {arguments.rounds} rounds;")
    print("; ".join(f"{name}: {version}" for name, version in bench.versions.items()))


if __name__ == "__main__":
    main()
