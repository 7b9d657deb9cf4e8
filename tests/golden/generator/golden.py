"""Random weights, and what transformers computes with them in f32."""

import pathlib

import numpy as np
import torch
import transformers

from generator.tensor_file import Tensors

MIN_MARGIN = 1e-3
# Where f32 and f64 differ by more, a choice of experts hangs on rounding: another seed.
MAX_ROUNDING = 2e-4
FIRST, LAST = 2, 12


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights that keep activations near one, so that every part of the model shows in the logits;
    all of them bf16 values."""
    for name, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            gemma = model.config.model_type == "gemma3_text"  # adds one to the weight
            values = 0.2 * values + (0 if gemma else 1)
        elif "embed_tokens" in name:
            pass
        elif "bias" in name or "sinks" in name:
            values *= 0.5
        elif tensor.dim() >= 2:
            # [out, in], or gpt-oss' experts [E, in, out].
            inputs = tensor.shape[-1]
            if model.config.model_type == "gpt_oss" and "experts" in name:
                inputs = tensor.shape[-2]
                values *= 3 if "gate_up" in name else 0.5  # beyond the activation's limit, at times
            values *= 1.5 / inputs**0.5
        tensor.copy_(values.to(torch.bfloat16))


def reload(folder: pathlib.Path, dtype: torch.dtype) -> torch.nn.Module:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


@torch.no_grad()
def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """[P, T, V]"""
    return model(input_ids=ids, use_cache=False).logits


@torch.no_grad()
def compute(folder: pathlib.Path, rng: np.random.Generator) -> Tensors | str:
    """The golden tensors of a plain checkpoint; why there are none for this seed."""
    model = reload(folder, torch.float32)
    vocab = model.config.vocab_size
    prompts, tokens, steps = int(rng.integers(2, 4)), int(rng.integers(67, 150)), 20
    ids = torch.from_numpy(rng.integers(3, vocab, (prompts, tokens)))
    logits = logits_of(model, ids)
    exact = logits_of(reload(folder, torch.float64), ids)
    rounding = float((logits - exact).abs().max())
    if not rounding <= MAX_ROUNDING:
        return f"f32 and f64 differ by {rounding:.2g}"
    text = ids
    margins = []
    for _ in range(steps):
        best = logits_of(model, text)[:, -1].topk(2)
        margins.append(best.values[:, 0] - best.values[:, 1])
        text = torch.cat([text, best.indices[:, :1]], 1)
    margin = torch.stack(margins, 1)
    if float(margin.min()) < MIN_MARGIN:
        return f"a margin of {float(margin.min()):.2g}"
    return {
        "input_ids": ids,
        "logits_first": logits[:, :FIRST].float(),
        "logits": logits[:, -LAST:].float(),
        "greedy": text[:, tokens:],
        "margin": margin.float(),
    }
