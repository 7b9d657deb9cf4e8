"""Sorting, extremes and totals of lists, unit prices, and comparisons of two numbers."""

from abacus.data.draw import Draw, Turn
from abacus.data.vocabulary import ITEMS


def _sort(draw: Draw, numbers: list[int], shown: str) -> Turn:
    r = draw.random
    descending = r.random() < 0.3
    question = draw.pick(
        ["Sort {s}.", "Sort the list {s}.", "Put {s} in order.", "Order these numbers: {s}"]
    )
    if descending:
        question = draw.pick(
            [
                "Sort {s} in descending order.",
                "Sort {s} from largest to smallest.",
                "Order these numbers from high to low: {s}",
            ]
        )
    elif r.random() < 0.3:
        question = draw.pick(["Sort {s} in ascending order.", "Sort {s} from smallest to largest."])
    name, function = ("max", max) if descending else ("min", min)
    rest, result, steps = list(numbers), [], []
    while rest:
        v = function(rest)
        steps.append(f"{name}({','.join(map(str, rest))})={v}")
        rest.remove(v)
        result.append(v)
    return Turn(draw.styled(question.format(s=shown)), steps, ", ".join(map(str, result)))


def _extreme(draw: Draw, numbers: list[int], shown: str) -> Turn:
    name, function, adjective, noun = "min", min, "smallest", "minimum"
    if draw.random.random() < 0.5:
        name, function, adjective, noun = "max", max, "largest", "maximum"
    question = draw.pick(
        [
            f"What is the {adjective} of {shown}?",
            f"Find the {noun} of {shown}.",
            f"Which number is {adjective}: {shown}?",
        ]
    )
    best, steps = numbers[0], []
    for y in numbers[1:]:
        better = function(best, y)
        steps.append(f"{name}({best},{y})={better}")
        best = better
    return Turn(draw.styled(question), steps, str(best))


def _total(draw: Draw, numbers: list[int], shown: str) -> Turn:
    question = draw.pick(
        ["What is the sum of {s}?", "Add up {s}.", "Find the total of {s}.", "Sum: {s}"]
    )
    total, steps = numbers[0], []
    for y in numbers[1:]:
        steps.append(f"{total}+{y}={total + y}")
        total += y
    return Turn(draw.styled(question.format(s=shown)), steps, str(total))


def _price(draw: Draw, item: str) -> Turn:
    r = draw.random
    a, unit, b = r.randint(2, 12), r.randint(2, 60), r.randint(2, 30)
    cost = a * unit
    question = draw.pick(
        [
            f"{a} {item} cost {cost} coins. How much do {b} {item} cost?",
            f"If {a} {item} cost {cost} coins, what is the price of {b} {item}?",
            f"A pack of {a} {item} costs {cost}. How much are {b} {item} at the same price?",
        ]
    )
    return Turn(question, [f"{cost}/{a}={unit}", f"{b}*{unit}={b * unit}"], str(b * unit))


def _cheaper(draw: Draw, item: str) -> Turn:
    r = draw.random
    a, b = r.randint(2, 12), r.randint(2, 12)
    u = r.randint(2, 40)
    v = r.randint(2, 40)
    while v == u:
        v = r.randint(2, 40)
    question = draw.pick(
        [
            f"Which is cheaper per piece: {a} {item} for {a * u} coins or {b} {item} "
            f"for {b * v} coins?",
            f"What is the better price, {a} {item} for {a * u} or {b} {item} for {b * v}?",
        ]
    )
    steps = [f"{a * u}/{a}={u}", f"{b * v}/{b}={v}", f"{u}<{v}" if u < v else f"{u}>{v}"]
    number, unit = (a, u) if u < v else (b, v)
    return Turn(question, steps, f"{number} {item} for {number * unit}")


def _compare(draw: Draw) -> Turn:
    r = draw.random
    digits = r.randint(1, 7)
    x = draw.number(digits)
    y = draw.number(digits)
    if digits > 1 and r.random() < 0.5:  # numbers that differ late
        text = list(str(x))
        i = r.randrange(1, digits)
        text[i] = draw.pick("0123456789")
        y = int("".join(text))
    if r.random() < 0.2:
        y = draw.number(r.randint(1, 7))
    if x == y:
        y = x + 1
    if r.random() < 0.6:
        answer = max(x, y)
        questions = [f"Which is larger, {x} or {y}?", f"Which number is bigger: {x} or {y}?"]
    else:
        answer = min(x, y)
        questions = [f"Which is smaller, {x} or {y}?", f"Which number is less: {x} or {y}?"]
    question = draw.pick(questions)
    return Turn(draw.styled(question), [f"{x}{'>' if x > y else '<'}{y}"], str(answer))


def lists(draw: Draw) -> Turn:
    """A question about three to seven numbers, two prices or two numbers."""
    r = draw.random
    kind = r.random()
    length = r.randint(3, 7)
    top = draw.pick([20, 100, 100, 1000])
    numbers = [r.randrange(top) for _ in range(length)]
    shown = ", ".join(map(str, numbers))
    if kind < 0.3:
        return _sort(draw, numbers, shown)
    if kind < 0.5:
        return _extreme(draw, numbers, shown)
    if kind < 0.68:
        return _total(draw, numbers, shown)
    item = draw.pick(ITEMS)
    if kind < 0.82:
        return _price(draw, item)
    if kind < 0.92:
        return _cheaper(draw, item)
    return _compare(draw)
