"""The mixture of families that training draws from, and the chat format of a sample."""

from collections.abc import Callable
from typing import NamedTuple

from abacus.data.arithmetic import addsub, mul
from abacus.data.checks import check
from abacus.data.draw import Draw, Turn
from abacus.data.equations import linear
from abacus.data.expressions import expr
from abacus.data.lists import lists
from abacus.data.needle import needle
from abacus.data.recursion import recursion
from abacus.data.talk import chat, short
from abacus.data.triangles import pythagoras
from abacus.data.vocabulary import NEUTRAL_SYSTEM, SHORT_SYSTEM
from abacus.data.word_problems import word

# Families whose sample is one question of its own.
SINGLE: dict[str, Callable[[Draw], Turn]] = {
    "addsub": addsub,
    "mul": mul,
    "expr": expr,
    "linear": linear,
    "recursion": recursion,
    "pythagoras": pythagoras,
    "word": word,
    "lists": lists,
    "check": check,
    "chat": chat,
}
MIXTURE = {
    "addsub": 16,
    "mul": 19,
    "expr": 17,
    "linear": 9,
    "recursion": 8,
    "pythagoras": 7,
    "word": 10,
    "lists": 10,
    "check": 4,
    "chat": 0.6,
    "short": 4,
    "needle": 6,
}
# Families of the earlier turns of a conversation.
CONVERSATION = {
    "addsub": 2,
    "mul": 1,
    "expr": 2,
    "linear": 2,
    "recursion": 1,
    "pythagoras": 1,
    "word": 2,
    "lists": 2,
    "chat": 1,
}
EVALUATED = [
    "addsub",
    "mul",
    "expr",
    "linear",
    "recursion",
    "pythagoras",
    "word",
    "needle",
    "lists",
    "check",
    "short",
]


class Sample(NamedTuple):
    """One training or evaluation text."""

    family: str
    system: str | None
    turns: list[Turn]


class Segment(NamedTuple):
    """A special token or a piece of text; `is_target`: training's loss counts it."""

    is_target: bool
    text: str


class Generator:
    """Draws samples; one seed gives one sequence of them."""

    def __init__(self, seed: int, count: Callable[[str], int]):
        """`count` gives the number of tokens of a text."""
        self.draw = Draw(seed)
        self.count = count

    def sample(
        self, family: str | None = None, train: bool = True, max_tokens: int = 1000
    ) -> Sample:
        """A sample of `family`, or of one drawn from the mixture.

        With `train` off it is a single question, as the evaluation asks them.
        """
        r = self.draw.random
        if family is None:
            family = r.choices(list(MIXTURE), list(MIXTURE.values()))[0]
        if family == "short":
            return Sample(family, self.draw.pick(SHORT_SYSTEM), [short(self.draw)])
        system = self.draw.pick(NEUTRAL_SYSTEM) if r.random() < 0.08 else None
        if family == "needle":
            return self._needle(system, train, max_tokens)
        if train and r.random() < 0.08:
            return Sample(family, system, self._conversation(family))
        return Sample(family, system, [SINGLE[family](self.draw)])

    def _needle(self, system: str | None, train: bool, max_tokens: int) -> Sample:
        r = self.draw.random
        budget = int(64 * (max_tokens / 64.0) ** r.random())
        if not train:
            turns, _ = needle(self.draw, budget, self.count, plain=r.random() < 0.5)
            return Sample("needle", system, turns)
        questions = 1 if budget < 128 else r.randint(1, 4)
        budget = min(budget, max_tokens - 34 * questions)
        question_first = r.random() < 0.06
        turns, _ = needle(
            self.draw, budget, self.count, questions=questions, question_first=question_first
        )
        if r.random() < 0.1:
            system = self.draw.pick(SHORT_SYSTEM)
            turns = [turn._replace(steps=None) for turn in turns]
        return Sample("needle", system, turns)

    def _conversation(self, family: str) -> list[Turn]:
        """One or two earlier turns; half of the conversations replay them without their steps."""
        r = self.draw.random
        earlier = r.choices(list(CONVERSATION), list(CONVERSATION.values()), k=r.randint(1, 2))
        turns = [SINGLE[name](self.draw) for name in [*earlier, family]]
        if r.random() < 0.5:
            past = [turn._replace(steps=None, history=True) for turn in turns[:-1]]
            turns = past + turns[-1:]
        return turns


def render(sample: Sample) -> list[Segment]:
    """The sample in the chat format; a turn of history teaches nothing."""
    segments = [Segment(False, "<|bos|>")]
    if sample.system is not None:
        segments += [Segment(False, "<|system|>"), Segment(False, sample.system)]
    for turn in sample.turns:
        target = not turn.history
        segments += [
            Segment(False, "<|user|>"),
            Segment(False, turn.question),
            Segment(False, "<|assistant|>"),
        ]
        answer = turn.answer
        if turn.steps is not None:
            segments.append(Segment(target, "<think>"))
            segments.append(Segment(target, "\n" + "\n".join(turn.steps) + "\n"))
            segments.append(Segment(target, "</think>"))
            answer = "\n" + answer
        segments += [Segment(target, answer), Segment(target, "<|end|>")]
    return segments
