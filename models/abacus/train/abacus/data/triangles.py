"""Right triangles, squares and square roots."""

import functools
import math

from abacus.data.draw import Draw, Turn

HYPOTENUSE_QUESTIONS = [
    "A right triangle has legs {a} and {b}. How long is the hypotenuse?",
    "The legs of a right triangle are {a} and {b}. Find the hypotenuse.",
    "Find c if a={a}, b={b} and a^2 + b^2 = c^2.",
    "What is the hypotenuse of a right triangle with sides {a} and {b}?",
    "A ladder stands {a} from a wall and reaches {b} up. How long is it?",
]
LEG_QUESTIONS = [
    "A right triangle has hypotenuse {c} and one leg {a}. How long is the other leg?",
    "The hypotenuse is {c} and one leg is {a}. Find the other leg.",
    "Find b if a={a}, c={c} and a^2 + b^2 = c^2.",
]
TRIPLE_QUESTIONS = [
    "Is {a}, {b}, {c} a Pythagorean triple?",
    "Do {a}, {b} and {c} form a right triangle?",
    "Can {a}, {b}, {c} be the sides of a right triangle?",
]
SQUARE_QUESTIONS = ["What is {n}^2?", "What is {n} squared?", "Square {n}."]
ROOT_QUESTIONS = [
    "What is the square root of {s}?",
    "What is sqrt({s})?",
    "Find the square root of {s}.",
]


@functools.cache
def triples() -> list[tuple[int, int, int]]:
    """Pythagorean triples with a hypotenuse of at most 130, both orders of the legs."""
    found = set()
    for m in range(2, 12):
        for n in range(1, m):
            a, b, c = m * m - n * n, 2 * m * n, m * m + n * n
            for k in range(1, 130 // c + 1):
                found.add((a * k, b * k, c * k))
                found.add((b * k, a * k, c * k))
    return sorted(found)


def _square_or_root(draw: Draw) -> Turn:
    n = draw.random.randint(1, 130)
    steps = [f"{n}^2={n * n}"]
    if draw.random.random() < 0.5:
        return Turn(draw.styled(draw.pick(SQUARE_QUESTIONS).format(n=n)), steps, str(n * n))
    return Turn(draw.styled(draw.pick(ROOT_QUESTIONS).format(s=n * n)), steps, str(n))


def _hypotenuse(draw: Draw, a: int, b: int, c: int) -> Turn:
    question = draw.pick(HYPOTENUSE_QUESTIONS).format(a=a, b=b)
    steps = [
        f"{a}^2={a * a}",
        f"{b}^2={b * b}",
        f"c^2={a * a}+{b * b}={c * c}",
        f"{c}^2={c * c}",
        f"c={c}",
    ]
    return Turn(draw.styled(question), steps, str(c))


def _leg(draw: Draw, a: int, b: int, c: int) -> Turn:
    question = draw.pick(LEG_QUESTIONS).format(a=a, c=c)
    steps = [
        f"{c}^2={c * c}",
        f"{a}^2={a * a}",
        f"b^2={c * c}-{a * a}={b * b}",
        f"{b}^2={b * b}",
        f"b={b}",
    ]
    return Turn(draw.styled(question), steps, str(b))


def _is_triple(draw: Draw, sides: list[int]) -> Turn:
    r = draw.random
    if r.random() < 0.5:
        i = r.randrange(3)
        sides[i] += draw.pick([-2, -1, 1, 2])
    a, b, c = (max(side, 1) for side in sides)
    legs, square = a * a + b * b, c * c
    question = draw.pick(TRIPLE_QUESTIONS).format(a=a, b=b, c=c)
    steps = [
        f"{a}^2={a * a}",
        f"{b}^2={b * b}",
        f"{a * a}+{b * b}={legs}",
        f"{c}^2={square}",
        f"{legs}={square}" if legs == square else f"{legs}!={square}",
    ]
    return Turn(draw.styled(question), steps, "yes" if legs == square else "no")


def _any_legs(draw: Draw) -> Turn:
    """Legs whose hypotenuse is seldom whole: the answer may be a root between two squares."""
    a, b = draw.random.randint(1, 60), draw.random.randint(1, 60)
    s = a * a + b * b
    n = math.isqrt(s)
    question = draw.styled(draw.pick(HYPOTENUSE_QUESTIONS[:2]).format(a=a, b=b))
    steps = [f"{a}^2={a * a}", f"{b}^2={b * b}", f"c^2={a * a}+{b * b}={s}"]
    if n * n == s:
        return Turn(question, steps + [f"{n}^2={s}", f"c={n}"], str(n))
    above = (n + 1) ** 2
    steps += [f"{n}^2={n * n}", f"{n + 1}^2={above}", f"{n * n}<{s}<{above}"]
    return Turn(question, steps, f"sqrt({s})")


def pythagoras(draw: Draw) -> Turn:
    """A question about a right triangle, a square or a root."""
    a, b, c = draw.pick(triples())
    kind = draw.random.random()
    if kind > 0.94:
        return _square_or_root(draw)
    if kind < 0.4:
        return _hypotenuse(draw, a, b, c)
    if kind < 0.65:
        return _leg(draw, a, b, c)
    if kind < 0.85:
        return _is_triple(draw, [a, b, c])
    return _any_legs(draw)
