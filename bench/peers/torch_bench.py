"""Prefill and decode of a shape with random weights in transformers, as JSON.

Usage: torch_bench.py SHAPE_FOLDER --dtype bf16|f32 --threads N --prefill 512 4096 --decode 64
"""

import argparse
import json
import time

import torch
import transformers


@torch.inference_mode()
def prefill(model: torch.nn.Module, tokens: int) -> tuple[float, object, torch.Tensor]:
    """(seconds, cache, the next token)"""
    ids = torch.randint(8, 512, (1, tokens))
    began = time.perf_counter()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    next_token = out.logits[:, -1:].argmax(-1)
    return time.perf_counter() - began, out.past_key_values, next_token


@torch.inference_mode()
def decode(model: torch.nn.Module, cache: object, token: torch.Tensor, tokens: int) -> float:
    """Seconds for that many steps of one token."""
    began = time.perf_counter()
    for _ in range(tokens):
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefill", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--decode", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(arguments.shape)
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    prefill(model, 32)  # first calls set things up
    results = {}
    for tokens in arguments.prefill:
        seconds, cache, token = prefill(model, tokens)
        results[f"prefill {tokens}"] = tokens / seconds
        if tokens == arguments.prefill[0]:
            results["decode"] = arguments.decode / decode(model, cache, token, arguments.decode)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({"version": versions, "tokens_per_s": results}))


if __name__ == "__main__":
    main()
