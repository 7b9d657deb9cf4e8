"""Weights in the quantised formats of published checkpoints, from the definitions of the formats.

Each function takes a matrix as its module has it, w [out, in] f32, and gives the tensors that a
checkpoint stores for it, by the suffix of their names, and the values that they stand for, in f32.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import torch

from generator.tensor_file import Tensors

Quantised = tuple[Tensors, torch.Tensor]


def fp8_blocks(w: torch.Tensor, block: tuple[int, int]) -> Quantised:
    """F8_E4M3 values; a block's f32 scale brings its largest value to 448, the largest of E4M3.
    Blocks at the right and lower edge may be cut."""
    rows, cols = w.shape
    row_blocks, col_blocks = (-(-size // each) for size, each in zip(w.shape, block))
    scales = torch.empty(row_blocks, col_blocks)
    for r in range(row_blocks):
        for c in range(col_blocks):
            part = w[r * block[0] : (r + 1) * block[0], c * block[1] : (c + 1) * block[1]]
            scales[r, c] = part.abs().max() / 448
    spread = scales.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :cols]
    values = (w / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale_inv": scales}, values.float() * spread


# The magnitudes of FP4 (E2M1), by their three bits.
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def mxfp4(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(blocks [..., n / 32, 16] u8, scales [..., n / 32] u8, values) of w [..., n]: OCP's
    microscaling format. 32 neighbours share the scale 2^(s - 127) that brings the largest one's
    exponent to FP4's largest, 2; the lower four bits of a byte come first."""
    groups = w.reshape(*w.shape[:-1], -1, 32).astype(np.float32)
    largest = np.maximum(np.abs(groups).max(-1, keepdims=True), 2.0**-120)
    exponents = np.floor(np.log2(largest)) - 2
    scaled = groups / np.exp2(exponents)
    codes = np.abs(np.abs(scaled)[..., None] - FP4).argmin(-1).astype(np.uint8)
    signs = (scaled < 0).astype(np.uint8) << 3
    values = np.where(scaled < 0, -1, 1) * FP4[codes] * np.exp2(exponents)
    codes |= signs
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    scales = (exponents[..., 0] + 127).astype(np.uint8)
    return blocks, scales, values.reshape(w.shape).astype(np.float32)


def pack(nibbles: np.ndarray, axis: int, order: tuple[int, ...] = tuple(range(8))) -> torch.Tensor:
    """Eight values of 4 bits in an int32 along `axis`; value order[i] of the eight in bits 4i."""
    moved = np.moveaxis(nibbles.astype(np.uint32), axis, -1)
    eights = moved.reshape(*moved.shape[:-1], -1, 8)
    packed = np.zeros(eights.shape[:-1], np.uint32)
    for i, source in enumerate(order):
        packed |= eights[..., source] << np.uint32(4 * i)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(packed, -1, axis)).view(np.int32))


@dataclasses.dataclass
class Int4Groups:
    """Unsigned 4-bit codes of x [in, out], a scale and a zero for each group of inputs."""

    codes: np.ndarray  # [in, out]
    zeros: np.ndarray  # [groups, out]
    scales: np.ndarray  # [groups, out] f16
    group_of: np.ndarray  # [in]

    def values(self) -> torch.Tensor:
        """[out, in]"""
        scales = self.scales.astype(np.float32)[self.group_of]
        centred = self.codes.astype(np.float32) - self.zeros.astype(np.float32)[self.group_of]
        return torch.from_numpy(np.ascontiguousarray((scales * centred).T))


def int4_groups(x: np.ndarray, group_of: np.ndarray, symmetric: bool) -> Int4Groups:
    groups = int(group_of.max()) + 1
    zeros = np.empty((groups, x.shape[1]), np.int64)
    scales = np.empty((groups, x.shape[1]), np.float16)
    for g in range(groups):
        part = x[group_of == g]
        if symmetric:
            scale = np.abs(part).max(0) / 7.5
            zeros[g] = 8
        else:
            low, high = np.minimum(part.min(0), 0), np.maximum(part.max(0), 0)
            scale = (high - low) / 15
            # GPTQ's first format stores the zero less one, so that it cannot be 0.
            zeros[g] = np.clip(np.round(-low / np.maximum(scale, 1e-8)), 1, 15)
        scales[g] = np.maximum(scale, 1e-6).astype(np.float16)
    wide = scales.astype(np.float32)[group_of]
    codes = np.clip(np.round(x / wide) + zeros[group_of], 0, 15).astype(np.uint8)
    return Int4Groups(codes, zeros, scales, group_of)


def gptq(w: torch.Tensor, config: dict, rng: np.random.Generator) -> Quantised:
    """AutoGPTQ: codes packed along the inputs, zeros along the outputs, one less in its first
    format. With desc_act the inputs of a group are anywhere."""
    x = w.numpy().T
    group_of = np.arange(x.shape[0]) // config["group_size"]
    if config["desc_act"]:
        group_of = rng.permutation(group_of)
    int4 = int4_groups(x, group_of, config["sym"])
    stored_zeros = int4.zeros - (1 if config["checkpoint_format"] == "gptq" else 0)
    return {
        "qweight": pack(int4.codes, 0),
        "qzeros": pack(stored_zeros, 1),
        "scales": torch.from_numpy(int4.scales),
        "g_idx": torch.from_numpy(group_of.astype(np.int32)),
    }, int4.values()


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq(w: torch.Tensor, config: dict) -> Quantised:
    """AWQ's GEMM version: codes and zeros packed along the outputs, in an order of its own."""
    x = w.numpy().T
    int4 = int4_groups(x, np.arange(x.shape[0]) // config["group_size"], symmetric=False)
    return {
        "qweight": pack(int4.codes, 1, AWQ_ORDER),
        "qzeros": pack(int4.zeros, 1, AWQ_ORDER),
        "scales": torch.from_numpy(int4.scales),
    }, int4.values()


def pack_quantized(w: torch.Tensor, group_size: int) -> Quantised:
    """compressed-tensors: signed codes plus 8, packed along the inputs; bf16 scales of groups."""
    groups = w.reshape(w.shape[0], -1, group_size)
    scales = (groups.abs().amax(-1) / 7.5).clamp(min=1e-6).to(torch.bfloat16)
    wide = scales.float()[..., None]
    codes = (groups / wide).round().clamp(-8, 7)
    values = (codes * wide).reshape(w.shape)
    unsigned = (codes.reshape(w.shape) + 8).numpy().astype(np.uint8)
    return {
        "weight_packed": pack(unsigned, 1),
        "weight_scale": scales,
        "weight_shape": torch.tensor(w.shape, dtype=torch.int64),
    }, values


# --- Whole checkpoints ---------------------------------------------------------------------------

# Of bf16 in every format: the router, the head and what is no matrix.
KEPT = re.compile(r"(lm_head|embed_tokens|norm|(mlp|block_sparse_moe)\.(gate|router))\.")


def is_linear(name: str, tensor: torch.Tensor) -> bool:
    return name.endswith(".weight") and tensor.dim() == 2 and not KEPT.search(name)


def quantise_linears(
    tensors: Tensors, quantise: Callable[[torch.Tensor], Quantised]
) -> tuple[Tensors, Tensors]:
    """(stored, values in f32 under the plain names) of a checkpoint whose linear layers are
    quantised."""
    stored, values = {}, {}
    for name, tensor in tensors.items():
        values[name] = tensor.float()
        if is_linear(name, tensor):
            parts, values[name] = quantise(tensor.float())
            stored |= {name.removesuffix("weight") + suffix: t for suffix, t in parts.items()}
        else:
            stored[name] = tensor
    return stored, values


def quantise_experts_mxfp4(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """gpt-oss: experts' [E, in, out] are stored as [E, out, in], quantised along the inputs."""
    stored, values = {}, {}
    for name, tensor in tensors.items():
        values[name] = tensor.float()
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = tensor
            continue
        blocks, scales, dequantised = mxfp4(tensor.float().numpy().transpose(0, 2, 1))
        stored[name + "_blocks"] = torch.from_numpy(np.ascontiguousarray(blocks))
        stored[name + "_scales"] = torch.from_numpy(np.ascontiguousarray(scales))
        values[name] = torch.from_numpy(np.ascontiguousarray(dequantised.transpose(0, 2, 1)))
    return stored, values
