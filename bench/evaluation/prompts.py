"""Evaluation prompts, and the texts that a reference gave for them, as JSON lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class FormatError(Exception):
    """A file that is not in the form of models/abacus/eval."""


@dataclass(frozen=True)
class Prompt:
    """One chat with the answer that is right."""

    id: str
    family: str
    messages: tuple[tuple[str, str], ...]  # (role, content)
    answer: str


def _records(path: Path) -> Iterator[tuple[str, dict]]:
    """(place, object) of each line that is not empty."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise FormatError(f"{place}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise FormatError(f"{place}: found a {type(record).__name__}, wanted an object")
        yield place, record


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """The first `limit` prompts of a file, or all."""
    prompts = []
    for place, record in _records(path):
        if limit is not None and len(prompts) == limit:
            break
        try:
            messages = tuple((m["role"], m["content"]) for m in record["messages"])
            prompt = Prompt(record["id"], record["family"], messages, record["answer"])
        except (KeyError, TypeError) as error:
            wanted = "id, family, messages (role, content) and answer"
            raise FormatError(f"{place}: {error!r}; wanted {wanted}") from error
        prompts.append(prompt)
    return prompts


def read_reference(path: Path) -> dict[str, str]:
    """Prompt id -> the text that the reference gave."""
    texts = {}
    for place, record in _records(path):
        if "id" not in record or "text" not in record:
            raise FormatError(f"{place}: found {sorted(record)}, wanted id and text")
        texts[record["id"]] = record["text"]
    return texts
