#!/usr/bin/env python3
"""Writes tests/golden/formats: small matrices in every weight format, with what they stand for.

Usage: tests/golden/make_formats.py [FOLDER]. Plain Python, written from the formats' own
descriptions: FineGrainedFP8 (transformers), AutoGPTQ's and GPTQModel's qweight/qzeros/g_idx,
AutoAWQ's GEMM packing, compressed-tensors' pack-quantized and int-quantized, gpt-oss' MXFP4.

`model.safetensors` holds each module's tensors and NAME.want, the matrix as f32; `configs.json`
holds NAME -> quantization_config.
"""

import json
import math
import pathlib
import random
import struct
import sys

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # bit field i of a word is this element
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def f16(value: float) -> float:
    return struct.unpack("<e", struct.pack("<e", value))[0]


def bf16(value: float) -> float:
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]


def e4m3(code: int) -> float:
    exponent, mantissa = code >> 3 & 15, code & 7
    if exponent == 0:
        magnitude = mantissa * 2.0**-9
    else:
        magnitude = (8 + mantissa) * 2.0 ** (exponent - 10)
    return -magnitude if code & 128 else magnitude


def words(fields: list[int], bits: int) -> int:
    value = sum(field << bits * i for i, field in enumerate(fields))
    return value - (1 << 32) if value >= 1 << 31 else value


class Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, tuple[str, list[int], bytes]] = {}
        self.configs: dict[str, dict] = {}

    def add(self, name: str, dtype: str, shape: list[int], values: list) -> None:
        assert len(values) == math.prod(shape), name
        codes = {"F32": "f", "F16": "e", "I32": "i", "I64": "q", "I8": "b", "U8": "B"}
        if dtype == "F8_E4M3":
            data = bytes(values)
        elif dtype == "BF16":
            data = b"".join(struct.pack("<f", v)[2:] for v in values)
        else:
            data = struct.pack(f"<{len(values)}{codes[dtype]}", *values)
        self.tensors[name] = (dtype, shape, data)

    def want(self, name: str, rows: list[list[float]]) -> None:
        flat = [f32(v) for row in rows for v in row]
        self.add(f"{name}.want", "F32", [len(rows), len(rows[0])], flat)

    def save(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        header, at = {}, 0
        for name, (dtype, shape, data) in self.tensors.items():
            offsets = [at, at + len(data)]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
            at += len(data)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / "model.safetensors", "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, _, data in self.tensors.values():
                out.write(data)
        (folder / "configs.json").write_text(json.dumps(self.configs, indent=1) + "\n")


def table(rng: random.Random, rows: int, cols: int, limit: int) -> list[list[int]]:
    return [[rng.randrange(limit) for _ in range(cols)] for _ in range(rows)]


def scales(rng: random.Random, rows: int, cols: int, rounded) -> list[list[float]]:
    return [[rounded(rng.uniform(0.01, 0.2)) for _ in range(cols)] for _ in range(rows)]


def flat(rows: list[list]) -> list:
    return [value for row in rows for value in row]


def fp8(w: Writer, rng: random.Random, name: str, rows: int, cols: int, block: int) -> None:
    codes = table(rng, rows, cols, 256)
    codes = [[c - 1 if c & 127 == 127 else c for c in row] for row in codes]
    scale = scales(rng, -(-rows // block), -(-cols // block), f32)
    w.configs[name] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [block, block]}
    w.add(f"{name}.weight", "F8_E4M3", [rows, cols], flat(codes))
    w.add(f"{name}.weight_scale_inv", "F32", [len(scale), len(scale[0])], flat(scale))
    w.want(name, [[e4m3(codes[r][c]) * scale[r // block][c // block] for c in range(cols)]
                  for r in range(rows)])


def gptq(w: Writer, rng: random.Random, name: str, bits: int, version: str, act: bool) -> None:
    rows, cols, group = 24, 64, 16
    groups, per, top = cols // group, 32 // bits, 1 << bits
    codes, zeros = table(rng, rows, cols, top), table(rng, rows, groups, top)
    if version == "gptq":  # what AutoGPTQ writes: a zero of 0 does not occur
        zeros = [[max(z, 1) for z in row] for row in zeros]
    scale = scales(rng, rows, groups, f16)
    order = [c // group for c in range(cols)]
    if act:
        rng.shuffle(order)
    bias = 1 if version == "gptq" else 0
    w.configs[name] = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": False,
                       "desc_act": act, "checkpoint_format": version}
    w.add(f"{name}.qweight", "I32", [cols // per, rows],
          [words([codes[r][c + i] for i in range(per)], bits)
           for c in range(0, cols, per) for r in range(rows)])
    w.add(f"{name}.qzeros", "I32", [groups, rows // per],
          [words([zeros[r + i][g] - bias for i in range(per)], bits)
           for g in range(groups) for r in range(0, rows, per)])
    w.add(f"{name}.scales", "F16", [groups, rows],
          [scale[r][g] for g in range(groups) for r in range(rows)])
    w.add(f"{name}.g_idx", "I32", [cols], order)
    w.want(name, [[(codes[r][c] - zeros[r][order[c]]) * scale[r][order[c]] for c in range(cols)]
                  for r in range(rows)])


def awq(w: Writer, rng: random.Random, name: str) -> None:
    rows, cols, group = 24, 64, 32
    groups = cols // group
    codes, zeros = table(rng, rows, cols, 16), table(rng, rows, groups, 16)
    scale = scales(rng, rows, groups, f16)
    w.configs[name] = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
                       "version": "gemm"}
    w.add(f"{name}.qweight", "I32", [cols, rows // 8],
          [words([codes[r + i][c] for i in AWQ_ORDER], 4)
           for c in range(cols) for r in range(0, rows, 8)])
    w.add(f"{name}.qzeros", "I32", [groups, rows // 8],
          [words([zeros[r + i][g] for i in AWQ_ORDER], 4)
           for g in range(groups) for r in range(0, rows, 8)])
    w.add(f"{name}.scales", "F16", [groups, rows],
          [scale[r][g] for g in range(groups) for r in range(rows)])
    w.want(name, [[(codes[r][c] - zeros[r][c // group]) * scale[r][c // group]
                   for c in range(cols)] for r in range(rows)])


def packed(w: Writer, rng: random.Random, name: str, bits: int, symmetric: bool) -> None:
    rows, cols, group = 20, 72, 24  # neither is a whole number of words' rows
    groups, per, middle = cols // group, 32 // bits, 1 << bits - 1
    codes = table(rng, rows, cols, 1 << bits)  # signed value + middle
    zeros = [[middle] * groups] * rows if symmetric else table(rng, rows, groups, 1 << bits)
    scale = scales(rng, rows, groups, bf16)
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group",
               "group_size": group, "dynamic": False}
    w.configs[name] = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                       "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    w.add(f"{name}.weight_packed", "I32", [rows, cols // per],
          [words(codes[r][c:c + per], bits) for r in range(rows) for c in range(0, cols, per)])
    w.add(f"{name}.weight_shape", "I64", [2], [rows, cols])
    w.add(f"{name}.weight_scale", "BF16", [rows, groups], flat(scale))
    if not symmetric:
        tall = zeros + [[0] * groups] * (-rows % per)
        w.add(f"{name}.weight_zero_point", "I32", [len(tall) // per, groups],
              [words([tall[r + i][g] for i in range(per)], bits)
               for r in range(0, len(tall), per) for g in range(groups)])
    w.want(name, [[(codes[r][c] - zeros[r][c // group]) * scale[r][c // group]
                   for c in range(cols)] for r in range(rows)])


def plain_ints(w: Writer, rng: random.Random, name: str) -> None:
    rows, cols = 6, 37
    codes = [[c - 128 for c in row] for row in table(rng, rows, cols, 256)]
    zeros = [rng.randrange(-20, 20) for _ in range(rows)]
    scale = scales(rng, rows, 1, bf16)
    weights = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "channel"}
    activations = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    w.configs[name] = {"quant_method": "compressed-tensors", "format": "int-quantized",
                       "config_groups": {"group_0": group}}
    w.add(f"{name}.weight", "I8", [rows, cols], flat(codes))
    w.add(f"{name}.weight_scale", "BF16", [rows, 1], flat(scale))
    w.add(f"{name}.weight_zero_point", "I8", [rows, 1], zeros)
    w.want(name, [[(codes[r][c] - zeros[r]) * scale[r][0] for c in range(cols)]
                  for r in range(rows)])


def channel_fp8(w: Writer, rng: random.Random, name: str) -> None:
    rows, cols = 5, 19
    codes = [[c - 1 if c & 127 == 127 else c for c in row] for row in table(rng, rows, cols, 256)]
    scale = scales(rng, rows, 1, bf16)
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
    w.configs[name] = {"quant_method": "compressed-tensors", "format": "float-quantized",
                       "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    w.add(f"{name}.weight", "F8_E4M3", [rows, cols], flat(codes))
    w.add(f"{name}.weight_scale", "BF16", [rows, 1], flat(scale))
    w.want(name, [[e4m3(codes[r][c]) * scale[r][0] for c in range(cols)] for r in range(rows)])


def mxfp4(w: Writer, rng: random.Random, name: str) -> None:
    experts, rows, cols = 3, 8, 64
    codes = [table(rng, rows, cols, 16) for _ in range(experts)]
    exponents = [[[rng.randrange(120, 130) for _ in range(cols // 32)] for _ in range(rows)]
                 for _ in range(experts)]
    w.configs[name] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    w.add(f"{name}_blocks", "U8", [experts, rows, cols // 32, 16],
          [row[c] | row[c + 1] << 4 for e in codes for row in e for c in range(0, cols, 2)])
    w.add(f"{name}_scales", "U8", [experts, rows, cols // 32],
          [x for e in exponents for row in e for x in row])
    for e in range(experts):
        w.want(f"{name}.{e}", [
            [(-1 if c & 8 else 1) * E2M1[c & 7] * 2.0 ** (exponents[e][r][i // 32] - 127)
             for i, c in enumerate(codes[e][r])] for r in range(rows)])


def main() -> None:
    default = pathlib.Path(__file__).parent / "formats"
    writer, rng = Writer(), random.Random(20)
    fp8(writer, rng, "fp8", 40, 70, 32)
    gptq(writer, rng, "gptq4", 4, "gptq", False)
    gptq(writer, rng, "gptq4_act", 4, "gptq", True)
    gptq(writer, rng, "gptq4_v2", 4, "gptq_v2", False)
    gptq(writer, rng, "gptq8", 8, "gptq", False)
    awq(writer, rng, "awq")
    packed(writer, rng, "packed4", 4, True)
    packed(writer, rng, "packed4_zeros", 4, False)
    packed(writer, rng, "packed8", 8, True)
    packed(writer, rng, "packed8_zeros", 8, False)
    plain_ints(writer, rng, "int8")
    channel_fp8(writer, rng, "fp8_channel")
    mxfp4(writer, rng, "experts")
    writer.save(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default)


if __name__ == "__main__":
    main()
