"""Questions whether one given step is right."""

from abacus.data.draw import Draw, Turn

QUESTIONS = [
    "Check: {e}={w}",
    "Is {e}={w} right?",
    "Check this step: {e}={w}",
    "Is it true that {e}={w}?",
    "Verify {e}={w}.",
]


def _expression(draw: Draw) -> tuple[str, int]:
    r = draw.random
    kind = r.randrange(6)
    if kind < 2:
        a, b = draw.number(r.randint(1, 4)), draw.number(r.randint(1, 4))
        if kind == 0:
            return f"{a}+{b}", a + b
        a, b = max(a, b), min(a, b)
        return f"{a}-{b}", a - b
    if kind == 2:
        a, b = r.randrange(100), r.randrange(10)
        return f"{a}*{b}", a * b
    if kind == 3:
        a, b = r.randrange(10), r.randrange(10)
        c = r.randrange(2)
        return f"{a}+{b}+{c}", a + b + c
    if kind == 4:
        a, b = r.randint(2, 12), r.randint(1, 99)
        return f"{a * b}/{a}", b
    a = r.randint(1, 130)
    return f"{a}^2", a * a


def _claim(draw: Draw, value: int) -> int:
    """`value`, or in half of the cases a number near it or with two digits exchanged."""
    r = draw.random
    if r.random() >= 0.5:
        return value
    claim = max(0, value + draw.pick([-1, 1, -10, 10, 2, -2, 100, -100]))
    if r.random() < 0.2 and value > 9:
        digits = list(str(value))
        i = r.randrange(len(digits) - 1)
        digits[i], digits[i + 1] = digits[i + 1], digits[i]
        claim = int("".join(digits))
    return claim


def check(draw: Draw) -> Turn:
    """Is this equation right?"""
    expression, value = _expression(draw)
    claim = _claim(draw, value)
    question = draw.pick(QUESTIONS).format(e=expression, w=claim)
    verdict = f"{claim}={value}" if claim == value else f"{claim}!={value}"
    answer = "right" if claim == value else "wrong"
    return Turn(draw.styled(question), [f"{expression}={value}", verdict], answer)
