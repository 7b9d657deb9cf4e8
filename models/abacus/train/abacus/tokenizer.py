"""Abacus's tokenizer in plain Python, for the generators and the trainer.

Byte-level BPE behind the pre-tokenizer Digits, Punctuation, ByteLevel. `Tokenizer` covers what the
generators write (ASCII, single spaces and newlines) and gives the same ids as the `tokenizers`
library does for tokenizer.json, which is the authority for any other text.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from abacus.data.samples import Segment

SPECIALS = [
    "<|pad|>",
    "<|bos|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<think>",
    "</think>",
]
END = SPECIALS.index("<|end|>")
# Marks, in packed training rows, the tokens that the loss counts.
TARGET_BIT = 1 << 15

PIECE = re.compile(r"[0-9]|[!-/:-@\[-`{-~]| ?[A-Za-z]+|\s+(?!\S)|\s+")
MAX_CACHED_PIECES = 200_000


def byte_characters() -> dict[int, str]:
    """GPT-2's mapping of bytes to printable characters, in which tokenizer.json spells tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    mapping = {b: chr(b) for b in printable}
    others = (b for b in range(256) if b not in mapping)
    return mapping | {b: chr(256 + n) for n, b in enumerate(others)}


class Tokenizer:
    """Encodes and decodes with the vocabulary and merges of a tokenizer.json."""

    def __init__(self, path: Path | str):
        description = json.loads(Path(path).read_text())
        self.vocabulary: dict[str, int] = description["model"]["vocab"]
        merges = description["model"]["merges"]
        self.rank = {tuple(pair): i for i, pair in enumerate(merges)}
        self.special = {t["content"]: t["id"] for t in description["added_tokens"]}
        self.spelling = byte_characters()
        byte_of = {c: b for b, c in self.spelling.items()}
        self.bytes_of = {
            i: t.encode() if t in self.special else bytes(byte_of[c] for c in t)
            for t, i in self.vocabulary.items()
        }
        self._cache: dict[str, list[int]] = {}

    def _merge(self, piece: str) -> list[int]:
        """Byte-pair encoding of one piece: the lowest-ranked pair first, all its places at once."""
        parts = [self.spelling[b] for b in piece.encode()]
        while len(parts) > 1:
            pairs = set(zip(parts, parts[1:])) & self.rank.keys()
            if not pairs:
                break
            best = min(pairs, key=self.rank.__getitem__)
            merged, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == best:
                    merged.append(best[0] + best[1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        return [self.vocabulary[x] for x in parts]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, which holds no special tokens."""
        ids = []
        for piece in PIECE.findall(text):
            known = self._cache.get(piece)
            if known is None:
                known = self._merge(piece)
                if len(self._cache) < MAX_CACHED_PIECES:
                    self._cache[piece] = known
            ids += known
        return ids

    def count(self, text: str) -> int:
        """The number of tokens of `text`."""
        return len(self.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens included."""
        return b"".join(self.bytes_of[i] for i in ids).decode("utf-8", "replace")

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """Ids of a rendered sample; those that the loss counts carry TARGET_BIT."""
        out = []
        for is_target, text in segments:
            ids = [self.special[text]] if text in self.special else self.encode(text)
            out += [i | TARGET_BIT for i in ids] if is_target else ids
        return out

    def encode_prompt(self, system: str | None, question: str) -> list[int]:
        """A question in the chat format, up to and with <|assistant|>."""
        ids = [self.special["<|bos|>"]]
        if system is not None:
            ids += [self.special["<|system|>"], *self.encode(system)]
        return ids + [
            self.special["<|user|>"],
            *self.encode(question),
            self.special["<|assistant|>"],
        ]
