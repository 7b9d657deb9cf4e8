"""Learns tokenizer.json and writes it with tokenizer_config.json (the chat template)."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from abacus.data.samples import Generator
from abacus.tokenizer import SPECIALS, byte_characters

VOCABULARY_SIZE = 512
MAX_POSITIONS = 65536
CORPUS_SEED = 7

CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{- '<|system|>' + message['content'] -}}"
    "{%- elif message['role'] == 'user' -%}{{- '<|user|>' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}"
    "{%- if message['reasoning_content'] is defined and message['reasoning_content'] -%}"
    "{{- '<think>\n' + message['reasoning_content'].strip('\n') + '\n</think>\n' -}}{%- endif -%}"
    "{{- message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_bos_token": False,
    "add_eos_token": False,
    "bos_token": "<|bos|>",
    "eos_token": "<|end|>",
    "pad_token": "<|pad|>",
    "unk_token": None,
    "clean_up_tokenization_spaces": False,
    "model_max_length": MAX_POSITIONS,
    "chat_template": CHAT_TEMPLATE,
}
PRE_TOKENIZERS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]


def corpus(samples: int) -> Iterator[str]:
    """Lines of `samples` generated samples; before a tokenizer exists, 3 characters are a token."""
    generator = Generator(CORPUS_SEED, count=lambda text: len(text) // 3)
    for _ in range(samples):
        sample = generator.sample(max_tokens=400)
        if sample.system:
            yield sample.system + "\n"
        for turn in sample.turns:
            steps = "\n".join(turn.steps or [])
            yield from (turn.question + "\n" + steps + "\n" + turn.answer + "\n").splitlines(True)


def learn_merges(lines: Iterator[str]) -> list[tuple[str, str]]:
    """Merges of byte-level BPE, the most frequent pair first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def tokenizer_json(merges: list[tuple[str, str]]) -> dict:
    """The content of tokenizer.json: special tokens, then bytes, then merges."""
    vocabulary = {token: i for i, token in enumerate(SPECIALS)}
    for character in sorted(byte_characters().values()):
        vocabulary[character] = len(vocabulary)
    for a, b in merges:
        vocabulary[a + b] = len(vocabulary)
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            # Decoding shows the reasoning's marks.
            "special": token not in ("<think>", "</think>"),
        }
        for i, token in enumerate(SPECIALS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS},
        "post_processor": None,
        "decoder": PRE_TOKENIZERS[-1],
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--samples", type=int, default=30_000, help="samples to learn from")
    args = parser.parse_args()
    merges = learn_merges(corpus(args.samples))
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer_json(merges), ensure_ascii=False, indent=1)
    (args.out / "tokenizer.json").write_text(text + "\n")
    text = json.dumps(TOKENIZER_CONFIG, ensure_ascii=False, indent=1)
    (args.out / "tokenizer_config.json").write_text(text + "\n")
    print(f"{len(merges)} merges written to {args.out / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
