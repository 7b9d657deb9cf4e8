"""Facts hidden in a text of a given length, and questions about them."""

from collections.abc import Callable

from abacus.data.draw import Draw, Turn
from abacus.data.vocabulary import (
    ADJECTIVES,
    ATTRIBUTES,
    COUNTED,
    ITEMS,
    NOUNS,
    PEOPLE,
    PLACES,
    TIMES,
    VERBS,
)

# (attribute, name, value)
Fact = tuple[str, str, str]

INTRODUCTIONS = ["", "", "Read this. ", "Remember: "]
SEPARATORS = ["\n", "\n", " ", "\nQuestion: "]
# Tokens of the chat format, the introduction and the question.
OVERHEAD_TOKENS = 34


def sentence(fact: Fact) -> str:
    """The fact as the text states it and as the model quotes it."""
    attribute, name, value = fact
    return f"The {attribute} of {name} is {value}."


def _filler(draw: Draw) -> str:
    x = draw.random.random()
    pick = draw.pick
    if x < 0.5:
        return f"The {pick(ADJECTIVES)} {pick(NOUNS)} {pick(VERBS)} {pick(PLACES)} {pick(TIMES)}."
    if x < 0.7:
        return f"There were {draw.random.randint(2, 999)} {pick(COUNTED)} near {pick(PLACES)}."
    if x < 0.85:
        return f"{pick(PEOPLE)} {pick(VERBS)} {pick(PLACES)} {pick(TIMES)}."
    return f"{pick(PEOPLE)} saw {draw.random.randint(2, 99)} {pick(ITEMS)} {pick(TIMES)}."


def _fillers(draw: Draw, tokens: int, count: Callable[[str], int]) -> list[str]:
    """Sentences until the next would exceed `tokens`."""
    sentences = []
    while tokens > 0:
        text = _filler(draw)
        tokens -= count(text)
        if tokens >= 0:
            sentences.append(text)
    return sentences


def _question(draw: Draw, fact: Fact) -> str:
    attribute, name, _ = fact
    return draw.pick(
        [
            f"What is the {attribute} of {name}?",
            f"What is the {attribute} of {name}?",
            f"Tell me the {attribute} of {name}.",
            f"Find the {attribute} of {name}.",
            f"Which {attribute} does {name} have?",
            f"Give the {attribute} of {name}.",
        ]
    )


def _facts(draw: Draw, number: int, plain: bool) -> list[Fact]:
    r = draw.random
    unique: dict[str, None] = {}  # ordered, so that a seed gives the same text in every process
    while len(unique) < number:
        unique[draw.name()] = None
    names = list(unique)
    r.shuffle(names)
    facts = []
    for name in names:
        attribute = "code" if plain or r.random() < 0.5 else draw.pick(ATTRIBUTES)
        facts.append((attribute, name, str(draw.number(r.randint(3, 6)))))
    if not plain and number > 2 and r.random() < 0.3:  # one name with two attributes
        other = draw.pick([x for x in ATTRIBUTES if x != facts[0][0]])
        facts[1] = (other, facts[0][1], facts[1][2])
    return facts


def needle(
    draw: Draw,
    budget: int,
    count: Callable[[str], int],
    facts: int | None = None,
    questions: int = 1,
    plain: bool = False,
    question_first: bool = False,
) -> tuple[list[Turn], list[float]]:
    """A text of about `budget` tokens with `facts` facts, and questions about some of them.

    Args:
      count: gives the number of tokens of a text.
      facts: how many facts; None draws it.
      questions: how many are asked, one a turn; the first turn holds the text.
      plain: every fact is a code.
      question_first: the first question stands before the text.

    Returns:
      The turns, and where in the text (0..1) each asked fact lies.
    """
    r = draw.random
    if facts is None:
        facts = max(1, min(int(r.random() ** 2 * 24) + 1, (budget - 30) // 18))
    known = _facts(draw, facts, plain)
    used = OVERHEAD_TOKENS + sum(count(sentence(fact)) for fact in known)
    sentences = _fillers(draw, budget - used, count)
    placed: list[tuple[float, str | Fact]] = [(r.random(), text) for text in sentences]
    placed += [(r.random(), fact) for fact in known]
    placed.sort(key=lambda x: x[0])
    text = " ".join(x if isinstance(x, str) else sentence(x) for _, x in placed)
    asked = [known[r.randrange(facts)] for _ in range(questions)]
    turns = []
    for i, fact in enumerate(asked):
        question = _question(draw, fact)
        if i == 0 and question_first:
            question = question + "\n" + text
        elif i == 0:
            question = draw.pick(INTRODUCTIONS) + text + draw.pick(SEPARATORS) + question
        turns.append(Turn(question, [sentence(fact)], fact[2]))
    return turns, [next(at for at, x in placed if x == fact) for fact in asked]
