"""Safetensors files, read and written for dtypes that numpy does not know."""

import json
import pathlib
import struct

import numpy as np
import torch

NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}

Tensors = dict[str, torch.Tensor]


def write(path: pathlib.Path, tensors: Tensors) -> None:
    """One file, widest elements first, so that every tensor is aligned."""
    header: dict = {"__metadata__": {"format": "pt"}}
    chunks = []
    end = 0
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        tensor = tensors[name].contiguous()
        chunks.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(chunks[-1])],
        }
        end += len(chunks[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read(path: pathlib.Path) -> Tensors:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = torch.from_numpy(np.frombuffer(data[begin:end], np.uint8).copy())
        tensors[name] = raw.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
