"""Writes model folders in the form that tests/golden/check reads."""

import argparse
import json
import pathlib
import shutil
import tempfile
import zlib

import numpy as np
import torch
import transformers

from generator import golden, legacy, quantise, tensor_file
from generator.families import Dice, Shape
from generator.quantised_families import FAMILIES
from generator.tensor_file import Tensors

TRIES = 50


def quantised(tensors: Tensors, shape: Shape, rng: np.random.Generator) -> tuple[Tensors, Tensors]:
    """(stored, values in f32)"""
    config = shape.quantisation
    if config is None:
        return tensors, {name: tensor.float() for name, tensor in tensors.items()}
    method = config["quant_method"]
    if method == "mxfp4":
        return quantise.quantise_experts_mxfp4(tensors)
    if method == "fp8":
        block = tuple(config["weight_block_size"])
        return quantise.quantise_linears(tensors, lambda w: quantise.fp8_blocks(w, block))
    if method == "gptq":
        return quantise.quantise_linears(tensors, lambda w: quantise.gptq(w, config, rng))
    if method == "awq":
        return quantise.quantise_linears(tensors, lambda w: quantise.awq(w, config))
    group_size = config["config_groups"]["group_0"]["weights"]["group_size"]
    return quantise.quantise_linears(tensors, lambda w: quantise.pack_quantized(w, group_size))


def with_mtp(tensors: Tensors, config: dict, generator: torch.Generator) -> Tensors:
    """Adds a module that predicts one token more, as published checkpoints have it: a layer behind
    the last one. It changes nothing of what the model itself computes."""
    last, behind = (f"model.layers.{config['num_hidden_layers'] - i}." for i in (1, 0))
    hidden = config["hidden_size"]
    more = {
        behind + name.removeprefix(last): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith(last)
    }
    for name in ("enorm.weight", "hnorm.weight", "shared_head.norm.weight"):
        more[behind + name] = torch.ones(hidden, dtype=torch.bfloat16)
    projection = torch.randn(hidden, 2 * hidden, generator=generator)
    more[behind + "eh_proj.weight"] = projection.bfloat16()
    more[behind + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    more[behind + "shared_head.head.weight"] = head.clone()
    return tensors | more


def write_model(folder: pathlib.Path, shape: Shape, seed: int, work: pathlib.Path) -> str:
    """The reason why the seed will not do; empty: the folder is written."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    config = transformers.AutoConfig.for_model(shape.model_type, **shape.settings)
    config.dtype = torch.float32
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    golden.randomise(model, generator)
    model.to(torch.bfloat16).save_pretrained(work)
    written = json.loads((work / "config.json").read_text()) | {"dtype": "bfloat16"}
    stored, values = quantised(tensor_file.read(work / "model.safetensors"), shape, rng)
    # What a checkpoint stores is loaded as published ones are: by the names on disk.
    tensor_file.write(work / "model.safetensors", values)
    (work / "config.json").write_text(json.dumps(written | {"dtype": "float32"}))
    answer = golden.compute(work, rng)
    if isinstance(answer, str):
        return answer
    if shape.mtp and shape.quantisation is None:
        written["num_nextn_predict_layers"] = 1
        stored = with_mtp(stored, written, generator)
    if shape.quantisation is not None:
        written["quantization_config"] = shape.quantisation
    folder.mkdir(parents=True)
    for name, text in (("config.json", written), ("config.legacy.json", legacy.convert(written))):
        (folder / name).write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    tensor_file.write(folder / "model.safetensors", stored)
    tensor_file.write(folder / "golden.safetensors", answer)
    return ""


def make(out: pathlib.Path, family: str, seed: int) -> None:
    folder = out / f"{family}-{seed}"
    if folder.exists():
        raise SystemExit(f"{folder}: found a folder, wanted none: it would be overwritten")
    first = zlib.crc32(family.encode()) + seed * 100_000
    shape = FAMILIES[family](Dice(first))
    for attempt in range(TRIES):
        with tempfile.TemporaryDirectory() as work:
            reason = write_model(folder, shape, first + attempt, pathlib.Path(work))
        if not reason:
            size = sum(f.stat().st_size for f in folder.iterdir())
            print(f"{folder}: {size / 1024:.0f} KiB, {attempt + 1} tries", flush=True)
            return
    shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(f"{folder}: none of {TRIES} weights will do; the last: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/golden/make_models", description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="folder for the models")
    parser.add_argument(
        "--family", action="append", choices=FAMILIES, help="repeated; default: all"
    )
    parser.add_argument("--seed", type=int, default=1, help="of sizes and weights (default: 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for family in arguments.family or FAMILIES:
        make(arguments.out, family, arguments.seed)


if __name__ == "__main__":
    main()
