#!/usr/bin/env python3
"""Serves shapes with random weights on a device and measures what their users would see.

    bench/sweep.py OUT.json [--device cuda] [--only NAME]... [--copy-rate 4.25]
    bench/sweep.py OUT.json --device cuda --ranks 2 --layout tp2      # a GPU a rank

One server a shape; every row is a `troupe bench` against it. Prints a table and writes JSON. Floors
are the bytes that a decode step must read, weights once and each sequence's keys and values, over
the copy rate (kernels_device_bench measures it); for experts, those that near-uniform routing
reaches. Peers are what vLLM 0.26 took on one H200 with its defaults.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import threading
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
BF16 = 2


@dataclass
class Row:
    kind: str  # decode: ms a step; prefill, throughput: tokens/s
    requests: int
    prompt: int
    output: int
    peer: float | None = None  # vLLM
    goal: float | None = None


@dataclass
class Sweep:
    shape: str
    kv_bytes: str
    rows: list[Row]


def decode(requests, peer=None, goal=None):
    return Row("decode", requests, 1024, 128, peer, goal)


SWEEPS = [
    Sweep(
        "qwen3-30b-a3b",
        "60GiB",
        [
            decode(1, 4.14, 2.3),
            decode(8, 9.26, 8.0),
            decode(32, 16.59, 15.3),
            decode(128, 21.16, 20.0),
            decode(256, 26.38, 24.5),
            Row("prefill", 1, 2048, 1, 31500),
            Row("prefill", 1, 8192, 1, 53200),
            Row("prefill", 1, 32768, 1, 29600),
            Row("throughput", 256, 1024, 1024, 7852),
        ],
    ),
    Sweep("qwen3-8b", "80GiB", [decode(1, 5.25), decode(64, 8.05), decode(256, 19.63)]),
    Sweep("deepseek-v2-lite", "80GiB", [decode(1), decode(64), decode(256)]),
]


def step_bytes(config, sequences, context):
    """Bytes that one decode step of so many sequences of so many tokens must read."""
    hidden = config["hidden_size"]
    layers = config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    if "kv_lora_rank" in config:
        latent = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        query = heads * (config["qk_nope_head_dim"] + config["qk_rope_head_dim"])
        values = heads * config["v_head_dim"]
        up = config["kv_lora_rank"] * heads * (config["qk_nope_head_dim"] + config["v_head_dim"])
        attention = hidden * (query + latent + values) + up
        kv_entry = latent
    else:
        head = config.get("head_dim", hidden // heads)
        kv_heads = config["num_key_value_heads"]
        attention = hidden * head * 2 * (heads + kv_heads)
        kv_entry = 2 * kv_heads * head
    experts = config.get("num_experts") or config.get("n_routed_experts") or 0
    dense_layers = config.get("first_k_dense_replace", 0) if experts else layers
    ffn = dense_layers * 3 * hidden * config["intermediate_size"]
    if experts:
        share = config["num_experts_per_tok"] / experts
        reached = experts * (1 - (1 - share) ** sequences) + config.get("n_shared_experts", 0)
        expert = 3 * hidden * config["moe_intermediate_size"]
        ffn += (layers - dense_layers) * (reached * expert + hidden * experts)
    weights = layers * attention + ffn + hidden * config["vocab_size"]
    return BF16 * (weights + layers * sequences * context * kv_entry)


class Server:
    """`troupe serve` of one shape, for as long as the context lasts."""

    def __init__(self, args, sweep):
        longest = max(row.requests for row in sweep.rows)
        command = [args.troupe, "serve", "--model", str(ROOT / "bench/shapes" / sweep.shape)]
        command += ["--load-format", "dummy", "--device", args.device, "--no-use-cache"]
        command += ["--listen", "127.0.0.1:0", "--kv-memory-bytes", args.kv_bytes or sweep.kv_bytes]
        command += ["--max-rows", str(longest), "--max-batch-size", str(longest)]
        command += ["--max-step-tokens", str(args.step_tokens), "--log-level", "error"]
        if args.ranks > 1:
            command += ["--ranks", str(args.ranks), "--layout", args.layout]
        self.command = command

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("listening on "):
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return line.split()[-1]
        raise SystemExit(f"sweep: the server ended with {self.process.wait()}: {self.command}")

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait(60)


def bench(args, target, row, requests=None, output=None):
    requests = requests or row.requests
    command = [args.troupe, "bench", "--target", target, "--output", "json"]
    command += ["--concurrency", str(requests), "--requests", str(requests)]
    command += ["--prompt-tokens", str(row.prompt), "--output-tokens", str(output or row.output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.row_timeout)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)["groups"]["all"]


def measure(args, target, config, row):
    found = bench(args, target, row)
    result = {**vars(row), "report": found}
    if row.kind == "decode":
        floor = step_bytes(config, row.requests, row.prompt + row.output / 2)
        result["value"] = found["gap_all_decode_ms"]["p50"]
        result["unit"] = "ms a step"
        result["floor"] = floor / (args.copy_rate * 1e9)
        result["share"] = result["floor"] / result["value"] if result["value"] > 0 else 0
    else:
        result["unit"] = "tokens/s"
        if row.kind == "prefill":
            result["value"] = row.prompt / (found["ttft_ms"]["p50"] / 1e3)
        else:
            result["value"] = found["output_tokens_per_s"]
    return result


def run_sweep(args, sweep):
    config = json.loads((ROOT / "bench/shapes" / sweep.shape / "config.json").read_text())
    results = []
    with Server(args, sweep) as target:
        for row in sweep.rows:
            try:
                # Memory, kernels and graphs of this size come to be before it is measured.
                bench(args, target, row, output=min(row.output, 16))
                results.append({"shape": sweep.shape, **measure(args, target, config, row)})
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                results.append({"shape": sweep.shape, **vars(row), "error": str(error)})
            print_row(results[-1])
    return results


HEADER = "shape             kind        requests  prompt      found  unit        floor  share"
HEADER += "     vLLM      goal"


def print_row(result):
    def number(key, width, digits=2):
        value = result.get(key)
        if value is None:
            return " " * width
        return f"{value:{width}.{0 if value >= 1000 else digits}f}"

    if "error" in result:
        tail = result["error"]
    else:
        share = result.get("share")
        tail = f"{number('value', 9)}  {result['unit']:10}{number('floor', 7)}"
        tail += f"  {share:5.0%}" if share is not None else " " * 7
        tail += f"{number('peer', 9)} {number('goal', 9)}"
    start = f"{result['shape']:18}{result['kind']:12}{result['requests']:8}{result['prompt']:8}"
    print(f"{start}  {tail}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--troupe", default=str(ROOT / "build/release/cli/troupe"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ranks", type=int, default=1, help="of the replica")
    parser.add_argument("--layout", default="", help="of several ranks; empty: chosen")
    parser.add_argument("--only", action="append", help="a shape; may be repeated")
    parser.add_argument("--copy-rate", type=float, default=4.25, help="TB/s")
    parser.add_argument("--kv-bytes", help="instead of what suits 141 GB")
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--row-timeout", type=float, default=120, help="seconds")
    args = parser.parse_args()
    known = {sweep.shape for sweep in SWEEPS}
    unknown = set(args.only or []) - known
    if unknown:
        raise SystemExit(f"sweep: found {sorted(unknown)}, wanted some of {sorted(known)}")
    print(HEADER)
    results = []
    for sweep in SWEEPS:
        if not args.only or sweep.shape in args.only:
            results += run_sweep(args, sweep)
    args.out.write_text(json.dumps({"device": args.device, "rows": results}, indent=2) + "\n")
    return 1 if any("error" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
