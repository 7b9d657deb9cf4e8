"""Linear equations in one unknown, solved and checked."""

from abacus.data.draw import Draw, Turn

QUESTIONS = [
    "Solve {e}.",
    "Solve for {v}: {e}",
    "Find {v} if {e}.",
    "{e}. What is {v}?",
    "What is {v} if {e}?",
    "Solve the equation {e}.",
    "{e}",
]


def _signed(n: int) -> str:
    return f"+{n}" if n >= 0 else f"-{-n}"


def _parenthesised(n: int) -> str:
    return str(n) if n >= 0 else f"({n})"


def _both_sides(draw: Draw, name: str, a: int, x: int) -> tuple[str, list[str]]:
    """a*x+b = c*x+d with c < a."""
    r = draw.random
    c = r.randint(1, a - 1)
    b = r.randint(-60, 60)
    d = (a - c) * x + b
    if b == 0 or d == 0:
        b, d = b + (a - c), d + (a - c)
    steps = [f"{a}*{name}-{c}*{name}={d}{_signed(-b)}"]
    if a - c > 1:
        steps.append(f"{a - c}*{name}={d}{_signed(-b)}={d - b}")
        steps.append(f"{name}={d - b}/{a - c}={x}")
    else:
        steps.append(f"{name}={d}{_signed(-b)}={x}")
    steps.append(f"{a}*{_parenthesised(x)}{_signed(b)}={a * x + b}")
    steps.append(f"{c}*{_parenthesised(x)}{_signed(d)}={c * x + d}")
    return f"{a}*{name}{_signed(b)}={c}*{name}{_signed(d)}", steps


def _one_side(draw: Draw, name: str, a: int, x: int) -> tuple[str, list[str]]:
    """a*x+b = c."""
    b = draw.random.randint(-99, 99)
    c = a * x + b
    steps = [
        f"{a}*{name}={c}{_signed(-b)}={c - b}",
        f"{name}={c - b}/{a}={x}",
        f"{a}*{_parenthesised(x)}{_signed(b)}={c}",
    ]
    return f"{a}*{name}{_signed(b)}={c}", steps


def _spaced(draw: Draw, equation: str) -> str:
    """The equation as people write it: with or without `*` and spaces."""
    if draw.random.random() < 0.5:
        equation = equation.replace("*", "")
    if draw.random.random() < 0.5:
        equation = equation.replace("=", " = ").replace("+", " + ")
        head, dash, tail = equation.partition("-")
        if dash and head and not head.endswith(" "):
            equation = head + " - " + tail
    return equation


def linear(draw: Draw) -> Turn:
    """A linear equation with a whole solution."""
    r = draw.random
    name = draw.pick("xxxxynkmtz")
    a = r.randint(2, 15)
    x = r.randint(-12, 30) if r.random() < 0.7 else r.randint(0, 99)
    make = _both_sides if r.random() < 0.25 else _one_side
    equation, steps = make(draw, name, a, x)
    shown = _spaced(draw, equation)
    question = draw.pick(QUESTIONS).format(e=shown, v=name)
    if question[0] not in "0123456789":
        question = draw.styled(question)
    return Turn(question, steps, f"{name}={x}")
