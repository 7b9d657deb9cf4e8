#!/usr/bin/env python3
"""Troupe's GPU kernels and PyTorch's, shape by shape in one run on one machine: times and ratios.

    bench/peers/gpu.py OUT.json --bench FOLDER/bin/kernels_device_bench [--only NAME]...

Ours are what kernels_device_bench measures: calls in a CUDA graph, whose data take turns so that
none is found in a cache. PyTorch's calls are timed the same way. The nearest peer of a kernel may
do less: `note` says so. A ratio is the peer's time over ours, so above 1 we are faster.
"""

import argparse
import json
import re
import subprocess
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

MOST_BYTES = 200 << 20  # of data that calls take turns with, beyond any cache
HEADS, KV_HEADS, HEAD_DIM = 32, 4, 128
HIDDEN, EXPERT, EXPERTS, TOP_K = 2048, 768, 128, 8


@dataclass
class Case:
    ours: str  # as kernels_device_bench names it
    peer: str
    make: Callable  # -> call(i) on the data of turn i, and how many turns there are
    note: str = ""


def bf16(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * 0.05


def turns_of(num_bytes):
    return max(1, min(24, MOST_BYTES // num_bytes + 1))


def microseconds(call, turns):
    """Of one call: the best of 5 replays of a graph of at least 2 ms."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(turns):
            call(i)
        stream.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        for i in range(turns):
            call(i)
        end.record(stream)
        stream.synchronize()
        once_ms = start.elapsed_time(end) / turns
        calls = turns * max(1, round(2 / (once_ms * turns)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(calls):
                call(i % turns)
        best = float("inf")
        for _ in range(6):
            start.record(stream)
            graph.replay()
            end.record(stream)
            stream.synchronize()
            best = min(best, start.elapsed_time(end) / calls)
    return best * 1e3


# ---- Peers


def attention(sequences, length, new, backend):
    def make():
        turns = turns_of(2 * sequences * KV_HEADS * length * HEAD_DIM * 2) if new == 1 else 1
        q = bf16(sequences, HEADS, new, HEAD_DIM)
        kv = [[bf16(sequences, KV_HEADS, length, HEAD_DIM) for _ in "kv"] for _ in range(turns)]

        def call(i):
            with sdpa_kernel([backend]):
                return F.scaled_dot_product_attention(q, *kv[i], is_causal=new > 1, enable_gqa=True)

        return call, turns

    return make


def latent_attention(sequences, length):
    """DeepSeek-V2-Lite in latent space, compiled: scores, softmax, weighted latents."""

    def make():
        turns = turns_of(sequences * length * 576 * 2)
        q = bf16(sequences, 16, 576)
        entries = [bf16(sequences, length, 576) for _ in range(turns)]

        @torch.compile
        def attend(q, entries):
            weights = torch.softmax((q @ entries.transpose(1, 2)).float() * 0.072, -1)
            return weights.to(torch.bfloat16) @ entries[..., :512]

        return lambda i: attend(q, entries[i]), turns

    return make


def linear(rows, outputs, inputs):
    def make():
        turns = turns_of(outputs * inputs * 2)
        x = bf16(rows, inputs)
        weights = [bf16(outputs, inputs) for _ in range(turns)]
        return lambda i: F.linear(x, weights[i]), turns

    return make


def experts(tokens):
    """A compiled layer around F.grouped_mm: sort, both products, SwiGLU, and a token's sum."""

    def make():
        gate_up = bf16(EXPERTS, 2 * EXPERT, HIDDEN).transpose(1, 2)
        down = bf16(EXPERTS, HIDDEN, EXPERT).transpose(1, 2)
        x = bf16(tokens, HIDDEN)
        chosen = torch.rand(tokens, EXPERTS, device="cuda").topk(TOP_K).indices
        weights = torch.full((tokens, TOP_K), 1 / TOP_K, device="cuda")

        @torch.compile
        def layer(x, chosen, weights):
            order = chosen.flatten().argsort()
            counts = F.one_hot(chosen.flatten(), EXPERTS).sum(0)
            ends = counts.cumsum(0).to(torch.int32)
            rows = x[order // TOP_K]
            gate, up = F.grouped_mm(rows, gate_up, offs=ends).chunk(2, -1)
            out = F.grouped_mm(F.silu(gate) * up, down, offs=ends)
            out = out.float() * weights.flatten()[order, None]
            return torch.zeros(tokens, HIDDEN, device="cuda").index_add_(0, order // TOP_K, out)

        return lambda i: layer(x, chosen, weights), 1

    return make


def norm(rows):
    def make():
        x = torch.randn(rows, HIDDEN, device="cuda")
        weight = torch.randn(HIDDEN, device="cuda")
        compiled = torch.compile(lambda x: F.rms_norm(x, (HIDDEN,), weight, 1e-6))
        return lambda i: compiled(x), 1

    return make


def route(rows):
    def make():
        x = torch.randn(rows, HIDDEN, device="cuda")
        turns = 16
        routers = [torch.randn(EXPERTS, HIDDEN, device="cuda") for _ in range(turns)]

        @torch.compile
        def choose(x, router):
            weights, chosen = torch.softmax(x @ router.T, -1).topk(TOP_K)
            return weights / weights.sum(-1, keepdim=True), chosen

        return lambda i: choose(x, routers[i]), turns

    return make


def attention_cases():
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    shapes = [(1, 8192, 1), (8, 8192, 1), (64, 8192, 1), (256, 1152, 1)]
    shapes += [(1, n, n) for n in (2048, 8192, 32768)]
    for sequences, length, new in shapes:
        for name, backend in backends.items():
            yield Case(
                f"paged_attention {sequences} x {length}, {new} new",
                f"SDPA {name}",
                attention(sequences, length, new, backend),
                "contiguous keys and values",
            )
    for length in (8192, 16384, 32768, 65536):
        yield Case(
            f"nsa all branches 16 x {length}, 1 new",
            "SDPA flash, full attention",
            attention(16, length, 1, SDPBackend.FLASH_ATTENTION),
            "PyTorch has no sparse decode: ours chooses, compresses and reads blocks",
        )
    for sequences, length in ((1, 8192), (64, 8192), (256, 1152)):
        yield Case(
            f"mla_attention {sequences} x {length}, 1 new",
            "compiled, latents alone",
            latent_attention(sequences, length),
            "without the products to and from the latent space, which ours has",
        )


def product_cases():
    shapes = {
        "8192 x 8192": (8192, 8192, (8192,)),
        "qkv 5120 x 2048": (5120, 2048, (1, 8, 32, 128, 256, 2048)),
        "out 2048 x 4096": (2048, 4096, (1, 8, 32, 128, 256, 2048)),
        "logits 151936 x 2048": (151936, 2048, (1, 32, 256)),
    }
    for name, (outputs, inputs, rows) in shapes.items():
        for count in rows:
            yield Case(
                f"linear {name} {count} rows",
                "F.linear",
                linear(count, outputs, inputs),
                "inputs and results in bf16, ours f32",
            )
    for tokens in (1, 8, 32, 128, 256, 2048, 4096):
        yield Case(f"moe_experts {tokens} tokens", "compiled, F.grouped_mm", experts(tokens))
    for rows in (1, 256):
        yield Case(f"rms_norm {rows} rows", "compiled F.rms_norm", norm(rows))
        yield Case(
            f"moe_route with router, {rows} rows",
            "compiled, f32",
            route(rows),
            "the router in f32, ours streams bf16",
        )


# What kernels_device_bench takes as a filter to print all that the cases name.
FILTERS = ["paged_attention", "nsa all", "mla_attention", "linear 8192", "linear qkv",
           "linear out", "linear logits", "moe_experts", "rms_norm", "moe_route"]


def ours(program, filters):
    """Microseconds by name; what follows a case's name there, as ", 46 experts", is kept."""
    found = {}
    for name in filters:
        done = subprocess.run([program, "cuda", name], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise SystemExit(f"{program} cuda {name}: {done.stderr[-1000:]}")
        for line in done.stdout.splitlines():
            if match := re.match(r"(.+?)\s+([\d.]+) us ", line):
                found[match[1]] = float(match[2])
    return found


def lookup(found, name):
    if name in found:
        return found[name]
    return next((us for full, us in found.items() if full.startswith(name + ",")), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="JSON to write")
    parser.add_argument("--bench", default="build/dev/kernels/kernels_device_bench")
    parser.add_argument("--only", action="append", help="cases whose name begins so; repeated")
    arguments = parser.parse_args()

    wanted = arguments.only or [""]
    cases = [case for case in (*attention_cases(), *product_cases())
             if any(case.ours.startswith(only) for only in wanted)]
    filters = [name for name in FILTERS if any(case.ours.startswith(name) for case in cases)]
    found = ours(arguments.bench, filters)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print(f"{'kernel':40} {'us':>9} {'peer us':>9} {'ratio':>6}  peer")
    rows = []
    for case in cases:
        own = lookup(found, case.ours)
        row = {"kernel": case.ours, "peer": case.peer, "note": case.note, "us": own}
        try:
            call, turns = case.make()
            row["peer_us"] = microseconds(call, turns)
            row["ratio"] = row["peer_us"] / own if own else None
        except (RuntimeError, torch.OutOfMemoryError) as error:
            row["error"] = str(error).splitlines()[0]
        rows.append(row)
        numbers = [f"{row.get(key) or float('nan'):{width}.{digits}f}"
                   for key, width, digits in (("us", 9, 1), ("peer_us", 9, 1), ("ratio", 6, 2))]
        print(f"{case.ours:40} {' '.join(numbers)}  {case.peer} {row.get('error', '')}", flush=True)
        torch.cuda.empty_cache()
        with open(arguments.out, "w") as out:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                       "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
