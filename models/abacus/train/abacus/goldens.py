"""Golden tensors: what fp32 inference from the saved weights must give for a few prompts.

    python -m abacus.goldens --out tests/golden/abacus [--names needle_16000]

MODEL.md and tests/golden/abacus/README.md describe the tensors. The prompts are in prompts.jsonl
beside them; index.json names what there is.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from abacus.paths import GOLDEN_DIR, MODEL_DIR
from abacus.reference import Details, Options, Reference
from abacus.reference.attention import Cache
from abacus.tokenizer import END, Tokenizer

LAST_LOGITS = 16
GREEDY_TOKENS = 64
# Prompts whose golden also holds what the layers decided: for every token, with the hidden states
# of the last ones, in a file of its own; or for the last tokens only, in the same file.
DETAILED = {"needle_700": 128}
DETAILED_TAIL = {"needle_16000": 64}


class Run(NamedTuple):
    """One forward pass over a prompt of n tokens."""

    ids: list[int]
    last_hidden: torch.Tensor  # [n, d]
    details: Details  # the chunks' details joined
    mtp_logits: torch.Tensor  # [n - 1, vocabulary]
    caches: list[Cache]
    chunk: int


def _joined(parts: list[Details], key: str, token_dimension: int) -> list[torch.Tensor]:
    """Chunks joined. Later chunks have more blocks to select, unseen by earlier tokens."""
    joined = []
    for layer in zip(*(getattr(part, key) for part in parts)):
        widest = layer[-1].shape[-1]
        padded = [torch.nn.functional.pad(t, (0, widest - t.shape[-1])) for t in layer]
        joined.append(torch.cat(padded, token_dimension))
    return joined


def run_prompt(reference: Reference, ids: list[int]) -> Run:
    """The prompt in one pass where it is short, else in chunks."""
    n = len(ids)
    chunk = n if n <= 1024 else 500
    tokens, positions = torch.tensor([ids]), torch.arange(n)[None]
    caches = reference.new_caches(1, n + 1, with_mtp=True)
    hidden, parts, mtp = [], [], []
    for start in range(0, n, chunk):
        part = Details()
        here = slice(start, start + chunk)
        x = reference.forward(tokens[:, here], positions[:, here], caches, Options(), part)
        hidden.append(x)
        parts.append(part)
    last_hidden = torch.cat(hidden, 1)
    for start in range(0, n - 1, chunk):
        here = slice(start, min(start + chunk, n - 1))
        following = tokens[:, here.start + 1 : here.stop + 1]
        mtp.append(
            reference.mtp_logits(
                last_hidden[:, here], following, positions[:, here], caches, Options()
            )
        )
    details = Details(
        hidden=_joined(parts, "hidden", 1),
        gates=_joined(parts, "gates", 1),
        selected=_joined(parts, "selected", 2),
        experts=_joined(parts, "experts", 1),
        expert_weights=_joined(parts, "expert_weights", 1),
    )
    return Run(ids, last_hidden[0], details, torch.cat(mtp, 1)[0], caches, chunk)


def outputs(reference: Reference, run: Run) -> dict[str, torch.Tensor]:
    """What every golden holds: logits of all heads at the last positions, and greedy tokens."""
    tensors = {
        "input_ids": torch.tensor(run.ids),
        "logits_last": reference.logits(run.last_hidden[-LAST_LOGITS:]),
        "mtp_logits_last": run.mtp_logits[-LAST_LOGITS:].clone(),
    }
    for layer in reference.config["early_exit_layers"]:
        x = run.details.hidden[layer + 1][0, -LAST_LOGITS:]
        tensors[f"early_exit_{layer}_logits_last"] = reference.early_exit_logits(layer, x)
    greedy = reference.generate([run.ids], limit=GREEDY_TOKENS, stop=None, chunk=run.chunk)[0]
    return tensors | {"greedy_ids": torch.tensor(greedy)}


def decisions(run: Run, last: int) -> dict[str, torch.Tensor]:
    """Gates, experts and blocks at the last `last` positions."""
    d = run.details
    selected = torch.stack(d.selected)[:, 0, :, -last:]  # [layers, G, last, blocks]
    count = selected.shape[-1]
    index = torch.where(selected, torch.arange(count), torch.full((), count))
    index = index.sort(-1).values[..., :8]
    blocks = torch.where(index < count, index, torch.full((), -1))
    return {
        "gates": torch.stack(d.gates)[:, 0, -last:].contiguous(),
        "experts": torch.stack(d.experts)[:, 0, -last:].to(torch.int32).contiguous(),
        "expert_weights": torch.stack(d.expert_weights)[:, 0, -last:].contiguous(),
        "selected_blocks": blocks.to(torch.int32).contiguous(),
    }


def states(reference: Reference, run: Run, last: int) -> dict[str, torch.Tensor]:
    """Hidden states of the last positions, and all compressed keys and values."""
    n = len(run.ids)
    tensors = {
        "input_ids": torch.tensor(run.ids),
        "positions": torch.arange(n - last, n),
        "hidden": torch.stack([x[0, -last:] for x in run.details.hidden]),
    }
    for i, cache in enumerate(run.caches):
        for name in ("compressed_keys", "compressed_values"):
            if name in cache:
                blocks = (n - 32) // 16 + 1
                tensors[f"{name}.{i}"] = cache[name][0, :, :blocks].contiguous()
    return tensors


def entry(prompt: dict, run: Run, greedy: list[int], tokenizer: Tokenizer) -> dict:
    """The line of index.json."""
    question = prompt["question"]
    if len(question) >= 400:
        question = question[:200] + " ... " + question[-100:]
    ended = greedy[: greedy.index(END)] if END in greedy else greedy
    return {
        "name": prompt["name"],
        "system": prompt["system"],
        "question": question,
        "answer": prompt["answer"],
        "prompt_tokens": len(run.ids),
        "greedy_text": tokenizer.decode(ended),
    }


def write(out: Path, prompt: dict, reference: Reference, tokenizer: Tokenizer) -> dict:
    """Writes the golden of one prompt and returns its entry of index.json."""
    name = prompt["name"]
    run = run_prompt(reference, tokenizer.encode_prompt(prompt["system"], prompt["question"]))
    n = len(run.ids)
    tensors = outputs(reference, run)
    greedy = tensors["greedy_ids"].tolist()
    if name in DETAILED:
        detail = states(reference, run, DETAILED[name]) | decisions(run, n)
        save_file(detail, out / f"{name}.detail.safetensors")
    if name in DETAILED_TAIL:
        last = DETAILED_TAIL[name]
        tensors |= {"positions": torch.arange(n - last, n)} | decisions(run, last)
    save_file(tensors, out / f"{name}.safetensors")
    return entry(prompt, run, greedy, tokenizer)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--prompts", type=Path, default=GOLDEN_DIR / "prompts.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", help="only these, by commas; the others stay as they are")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, reference = Tokenizer(args.model / "tokenizer.json"), Reference(args.model)
    prompts = [json.loads(line) for line in args.prompts.read_text().splitlines()]
    chosen = args.names.split(",") if args.names else [p["name"] for p in prompts]
    args.out.mkdir(parents=True, exist_ok=True)
    index_path = args.out / "index.json"
    known = json.loads(index_path.read_text()) if index_path.exists() else []
    entries = {e["name"]: e for e in known}
    for prompt in prompts:
        if prompt["name"] in chosen:
            made = write(args.out, prompt, reference, tokenizer)
            entries[made["name"]] = made
            print(f"{made['name']}: {made['prompt_tokens']} tokens", flush=True)
    ordered = [entries[p["name"]] for p in prompts if p["name"] in entries]
    index_path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
