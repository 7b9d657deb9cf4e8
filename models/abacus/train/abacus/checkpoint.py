"""The model's weights on disk: bf16 safetensors shards with an index."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

INDEX = "model.safetensors.index.json"


def _as_stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """bf16; but the router's bias decides between near ties, so it stays fp32."""
    exact = name.endswith("e_score_correction_bias")
    return tensor.to(torch.float32 if exact else torch.bfloat16).contiguous()


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 2) -> None:
    """Writes `tensors` in order into `shards` files of about equal size."""
    stored = {name: _as_stored(name, t) for name, t in tensors.items()}
    total = sum(t.numel() * t.element_size() for t in stored.values())
    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, t in stored.items():
        tensor_bytes = t.numel() * t.element_size()
        if size + tensor_bytes > total / shards + 1 and len(parts) < shards:
            parts.append({})
            size = 0
        parts[-1][name] = t
        size += tensor_bytes
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def load_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, as they are stored."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    tensors = {}
    for file in sorted(set(weight_map.values())):
        tensors |= load_file(folder / file)
    return tensors
