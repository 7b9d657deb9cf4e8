"""Rows of packed samples for the trainer, made by worker processes.

A row is uint16; TARGET_BIT marks the tokens that the loss counts, zero pads the end.
"""

import multiprocessing
import os
from pathlib import Path

import numpy as np

from abacus.data.needle import needle
from abacus.data.samples import Generator, Sample, render
from abacus.tokenizer import Tokenizer

SAMPLE_TOKENS = 960
POOL = 48
# Of a conversation about a long text: tokens of a question with its answer.
QUESTION_TOKENS = 34


class Packer:
    """Fills rows of `tokens` tokens; `long` rows begin with conversations about long texts."""

    def __init__(self, tokenizer: Path, seed: int, tokens: int, long: bool):
        self.tokenizer = Tokenizer(tokenizer)
        self.generator = Generator(seed, self.tokenizer.count)
        self.tokens, self.long = tokens, long
        self.pool: list[np.ndarray] = []

    def _encode(self, sample: Sample) -> np.ndarray:
        return np.array(self.tokenizer.encode_segments(render(sample)), dtype=np.uint16)

    def _conversation(self, longest: int) -> np.ndarray:
        """One text of up to `longest` tokens and several questions about it."""
        r = self.generator.draw.random
        questions = r.randint(3, 8)
        budget = int(700 * ((longest - 40) / 700.0) ** r.random())
        questions = min(questions, budget // 120)
        facts = max(2, min(int(r.random() ** 2 * 40) + 1, budget // 40))
        turns, _ = needle(
            self.generator.draw,
            budget - QUESTION_TOKENS * questions,
            self.tokenizer.count,
            facts=facts,
            questions=questions,
            plain=r.random() < 0.3,
        )
        return self._encode(Sample("needle", None, turns))

    def _take(self, room: int) -> np.ndarray | None:
        """A random sample of the pool, or the longest that fits; None where none does."""
        while len(self.pool) < POOL:
            self.pool.append(self._encode(self.generator.sample(max_tokens=SAMPLE_TOKENS)))
        k = self.generator.draw.random.randrange(len(self.pool))
        if len(self.pool[k]) > room:
            fitting = [j for j, sample in enumerate(self.pool) if len(sample) <= room]
            if not fitting:
                return None
            k = max(fitting, key=lambda j: len(self.pool[j]))
        sample = self.pool[k]
        self.pool[k] = self.pool[-1]
        self.pool.pop()
        return sample

    def _row(self) -> np.ndarray:
        row, at = np.zeros(self.tokens, dtype=np.uint16), 0
        r = self.generator.draw.random
        while self.long and self.tokens - at > 1500 and (at == 0 or r.random() < 0.75):
            room = self.tokens - at
            conversation = self._conversation(room)[:room]
            row[at : at + len(conversation)] = conversation
            at += len(conversation)
        while (sample := self._take(self.tokens - at)) is not None:
            row[at : at + len(sample)] = sample
            at += len(sample)
        return row

    def batch(self, rows: int) -> np.ndarray:
        """[rows, tokens]"""
        return np.stack([self._row() for _ in range(rows)])


def _work(queue, tokenizer: Path, seed: int, tokens: int, rows: int, long: bool) -> None:
    os.nice(5)  # the trainer's own thread goes first
    packer = Packer(tokenizer, seed, tokens, long)
    while True:
        queue.put(packer.batch(rows))


class Feed:
    """Batches of one shape from worker processes, which end with this process."""

    def __init__(
        self, tokenizer: Path, seed: int, tokens: int, rows: int, long: bool, workers: int
    ):
        self._queue: multiprocessing.Queue = multiprocessing.Queue(3 * workers)
        self._workers = [
            multiprocessing.Process(
                target=_work,
                args=(self._queue, tokenizer, seed + 1000003 * k, tokens, rows, long),
                daemon=True,
            )
            for k in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def next(self) -> np.ndarray:
        """The next batch; waits for one."""
        return self._queue.get()

    def stop(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.terminate()
