"""Functions defined by recursion, evaluated from the base upwards with a memo."""

from collections.abc import Callable

from abacus.data.draw import Draw, Turn

FIBONACCI_QUESTIONS = [
    "What is fib({n})?",
    "Compute fib({n}).",
    "fib({n})",
    "Find the Fibonacci number fib({n}).",
    "Give fib({n}), where fib(0)=0 and fib(1)=1.",
    "What is Fibonacci number {n}?",
]
FACTORIAL_QUESTIONS = [
    "What is fact({n})?",
    "Compute {n}!",
    "What is {n} factorial?",
    "What is {n}!?",
    "Compute fact({n}).",
    "Find the factorial of {n}.",
]
DEFINED_QUESTIONS = [
    "Let {b} and {r}. What is {f}({n})?",
    "{b}, {r}. Find {f}({n}).",
    "A function has {b} and {r}. Compute {f}({n}).",
    "Given {b} and {r}, what is {f}({n})?",
]


def _sum_of_two(f: str, a: int, b: int, n: int) -> tuple[list[str], int]:
    """Lines of f(0)=a, f(1)=b, f(i)=f(i-1)+f(i-2) up to n, and f(n)."""
    values = [a, b]
    lines = [f"{f}(0)={a}", f"{f}(1)={b}"]
    for i in range(2, n + 1):
        values.append(values[-1] + values[-2])
        lines.append(f"{f}({i})={values[i - 1]}+{values[i - 2]}={values[i]}")
    return lines, values[n]


def _fibonacci(draw: Draw) -> Turn:
    n = draw.random.randint(2, 22)
    lines, result = _sum_of_two("fib", 0, 1, n)
    question = draw.pick(FIBONACCI_QUESTIONS).format(n=n)
    return Turn(draw.styled(question), lines, str(result))


def _factorial(draw: Draw) -> Turn:
    n = draw.random.randint(2, 10)
    result = 1
    lines = ["fact(1)=1"]
    for i in range(2, n + 1):
        lines.append(f"fact({i})={i}*{result}={i * result}")
        result *= i
    question = draw.pick(FACTORIAL_QUESTIONS).format(n=n)
    return Turn(draw.styled(question), lines, str(result))


def _ask(draw: Draw, f: str, base: str, rule: str, n: int, lines: list[str], result: int) -> Turn:
    question = draw.pick(DEFINED_QUESTIONS).format(b=base, r=rule, f=f, n=n)
    if question[0] != f:  # a lower-case function name stays as it is
        question = draw.styled(question)
    return Turn(question, lines, str(result))


def _two_terms(draw: Draw, f: str) -> Turn:
    r = draw.random
    a, b = r.randint(0, 30), r.randint(0, 30)
    n = r.randint(3, 12)
    lines, result = _sum_of_two(f, a, b, n)
    rule = f"{f}(n)={f}(n-1)+{f}(n-2)"
    return _ask(draw, f, f"{f}(0)={a}, {f}(1)={b}", rule, n, lines, result)


def _iterate(
    f: str, start: int, n: int, step: Callable[[int, int], tuple[str, int]]
) -> tuple[list[str], int]:
    """Lines of f(0)=start and f(i) by step(i, f(i-1)) -> (right-hand side, f(i)), and f(n)."""
    v, lines = start, [f"{f}(0)={start}"]
    for i in range(1, n + 1):
        shown, v = step(i, v)
        lines.append(f"{f}({i})={shown}={v}")
    return lines, v


def _one_term(draw: Draw, f: str, kind: float) -> Turn:
    r = draw.random
    n = r.randint(3, 12)
    start = r.randint(0, 40)
    if kind < 0.72:
        k = r.randint(2, 60)
        rule = f"{f}(n)={f}(n-1)+{k}"
        lines, result = _iterate(f, start, n, lambda i, v: (f"{v}+{k}", v + k))
    elif kind < 0.84:
        rule = f"{f}(n)={f}(n-1)+n"
        lines, result = _iterate(f, start, n, lambda i, v: (f"{v}+{i}", v + i))
    elif kind < 0.92:
        start, n = start % 10 + 1, min(n, 8)
        k = r.randint(1, 9)
        rule = f"{f}(n)=2*{f}(n-1)+{k}"
        lines, result = _iterate(f, start, n, lambda i, v: (f"2*{v}+{k}={2 * v}+{k}", 2 * v + k))
    else:
        k = r.randint(2, 20)
        start += n * k
        rule = f"{f}(n)={f}(n-1)-{k}"
        lines, result = _iterate(f, start, n, lambda i, v: (f"{v}-{k}", v - k))
    return _ask(draw, f, f"{f}(0)={start}", rule, n, lines, result)


def recursion(draw: Draw) -> Turn:
    """Fibonacci numbers, factorials, and functions that the question defines."""
    kind = draw.random.random()
    if kind < 0.25:
        return _fibonacci(draw)
    if kind < 0.4:
        return _factorial(draw)
    f = draw.pick("fghstpa")
    return _two_terms(draw, f) if kind < 0.6 else _one_term(draw, f, kind)
