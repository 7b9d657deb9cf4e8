"""Abacus for inference, as models/abacus/MODEL.md describes it: PyTorch, fp32, saved tensors.

This is what engines are compared with, so it is written to be read. A batch shares one cache; its
rows may have different lengths. A call takes a chunk of new tokens: either every row at the same
positions (prefill) or one token a row at its own position (decode).

Symbols in shapes: B rows, C new tokens of a row, d hidden size, H query heads, G KV heads, R = H/G,
D head size, T cached tokens, N compressed tokens, J selection blocks.
"""

from abacus.reference.model import Reference
from abacus.reference.options import Details, Options

__all__ = ["Details", "Options", "Reference"]
