"""Random choices that the families share: numbers, names and small changes of wording."""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from abacus.data.vocabulary import CODA, ONSET, VOWEL

T = TypeVar("T")


class Turn(NamedTuple):
    """One question with its solution.

    `steps` are the lines between <think> and </think>, each a checkable equation or assertion; None
    where the system message asks for a short answer. A turn of `history` is context, not a target.
    """

    question: str
    steps: list[str] | None
    answer: str
    history: bool = False


class Draw:
    """A seeded source of random choices; every family takes one."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`, all equally likely."""
        return choices[int(self.random.random() * len(choices))]

    def number(self, digits: int) -> int:
        """A number of exactly `digits` digits; 0..9 for one digit."""
        if digits == 1:
            return self.random.randrange(10)
        if self.random.random() < 0.08:  # long carry and borrow chains
            text = "".join(self.pick("0199") for _ in range(digits))
            return int(self.pick("19") + text[1:])
        return self.random.randrange(10 ** (digits - 1), 10**digits)

    def styled(self, question: str) -> str:
        """`question` with the small changes that users make: no capital, no full stop."""
        x = self.random.random()
        ends = question[-1] in ".?"
        if x < 0.12 or (0.2 <= x < 0.25) or (x < 0.2 and not ends):
            question = question[0].lower() + question[1:]
        return question[:-1] if ends and 0.12 <= x < 0.25 else question

    def name(self) -> str:
        """An invented name of two or three syllables."""
        syllables = 2 if self.random.random() < 0.6 else 3
        parts = (
            self.pick(ONSET) + self.pick(VOWEL) + (self.pick(CODA) if i else "")
            for i in range(syllables)
        )
        return "".join(parts).capitalize()
