"""Sums, differences and products of whole numbers, worked out column by column."""

from abacus.data.draw import Draw, Turn

ADD_QUESTIONS = [
    "What is {a} + {b}?",
    "What is {a}+{b}?",
    "{a}+{b}",
    "Compute {a}+{b}.",
    "Add {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "How much is {a} plus {b}?",
    "Calculate {a} + {b}.",
    "{a} + {b} = ?",
    "What do you get if you add {b} to {a}?",
    "{a} plus {b}",
]
SUBTRACT_QUESTIONS = [
    "What is {a} - {b}?",
    "What is {a}-{b}?",
    "{a}-{b}",
    "Compute {a}-{b}.",
    "Subtract {b} from {a}.",
    "How much is {a} minus {b}?",
    "Calculate {a} - {b}.",
    "{a} - {b} = ?",
    "Take {b} away from {a}.",
    "{a} minus {b}",
]
MULTIPLY_QUESTIONS = [
    "What is {a} * {b}?",
    "What is {a}*{b}?",
    "{a}*{b}",
    "Compute {a}*{b}.",
    "Multiply {a} by {b}.",
    "What is {a} times {b}?",
    "How much is {a} times {b}?",
    "Calculate {a} * {b}.",
    "Find the product of {a} and {b}.",
    "{a} * {b} = ?",
    "{a} times {b}",
]


def add_columns(a: int, b: int) -> list[str]:
    """Column addition: '<rest of a>+<rest of b>|<digit>+<digit>+<carry>=<sum>|<result so far>'."""
    x, y, carry, result, lines = str(a), str(b), 0, "", []
    while True:
        total = int(x[-1]) + int(y[-1]) + carry
        last = len(x) == 1 and len(y) == 1
        result = (str(total) if last else str(total % 10)) + result
        lines.append(f"{x}+{y}|{x[-1]}+{y[-1]}+{carry}={total}|{result}")
        if last:
            return lines
        carry = total // 10
        x, y = x[:-1] or "0", y[:-1] or "0"


def subtract_columns(a: int, b: int) -> list[str]:
    """Column subtraction of a >= b: a column's first number is 10 more where it borrows."""
    x, y, borrow, result, lines = str(a), str(b), 0, "", []
    while True:
        upper, lower = int(x[-1]), int(y[-1])
        if upper - lower - borrow < 0:
            upper += 10
        digit = upper - lower - borrow
        result = str(digit) + result
        lines.append(f"{x}-{y}|{upper}-{lower}-{borrow}={digit}|{result}")
        if len(x) == 1 and len(y) == 1:
            return lines
        borrow = 1 if upper >= 10 else 0
        x, y = x[:-1] or "0", y[:-1] or "0"


def _operands(draw: Draw, max_digits: int) -> tuple[int, int]:
    r = draw.random
    long = r.randint(1, max_digits)
    short = long if r.random() < 0.4 else r.randint(1, long)
    a, b = draw.number(long), draw.number(short)
    return (b, a) if r.random() < 0.5 else (a, b)


def _solve(a: int, b: int, operator: str) -> tuple[list[str], str]:
    result = a + b if operator == "+" else a - b
    summary = f"{a}{operator}{b}={result}"
    if max(a, b) < 1000:
        return [summary], str(result)
    if operator == "+":
        return add_columns(a, b) + [summary], str(result)
    if a >= b:
        return subtract_columns(a, b) + [summary], str(result)
    return [f"{a}<{b}"] + subtract_columns(b, a) + [summary], str(result)


def addsub(draw: Draw, max_digits: int = 12) -> Turn:
    """A sum or a difference of numbers of up to `max_digits` digits."""
    a, b = _operands(draw, max_digits)
    operator = "+" if draw.random.random() < 0.5 else "-"
    if operator == "-" and a < b and draw.random.random() < 0.7:
        a, b = b, a
    questions = ADD_QUESTIONS
    if operator == "-":
        questions = SUBTRACT_QUESTIONS
        if a >= b:
            questions = questions + ["What is the difference between {a} and {b}?"]
    steps, answer = _solve(a, b, operator)
    return Turn(draw.styled(draw.pick(questions).format(a=a, b=b)), steps, answer)


def _partial_product(a: int, digit: int) -> list[str]:
    """a * digit; a number of more than two digits is taken apart at the hundreds."""
    if digit == 0 or a < 100:
        return [f"{a}*{digit}={a * digit}"]
    high, low = divmod(a, 100)
    return [
        f"{high}*{digit}={high * digit}",
        f"{low}*{digit}={low * digit}",
        f"{high * digit * 100}+{low * digit}={a * digit}",
    ]


def multiply_lines(a: int, b: int) -> list[str]:
    """Partial products from b's lowest digit; a running sum whose finished low digits leave it."""
    if a < 100 and b < 10:
        return [f"{a}*{b}={a * b}"]
    lines = [f"{a}={a // 100}*100+{a % 100}"] if a >= 100 else []
    if b < 10:
        return lines + _partial_product(a, b) + [f"{a}*{b}={a * b}"]
    rest, carry, low = b, None, ""
    while True:
        upper, digit = divmod(rest, 10)
        lines.append(f"{rest}={upper}*10+{digit}")
        lines += _partial_product(a, digit)
        total = a * digit
        if carry is not None:
            lines.append(f"{total}+{carry}={total + carry}")
            total += carry
        if upper == 0:
            break
        carry, done = divmod(total, 10)
        low = str(done) + low
        lines.append(f"{total}={carry}*10+{done}|{low}")
        rest = upper
    lines.append(f"{total}*{10 ** len(low)}+{low}={a * b}")
    lines.append(f"{a}*{b}={a * b}")
    return lines


def mul(draw: Draw) -> Turn:
    """A product of two numbers of up to four digits."""
    r = draw.random
    digits_a = r.choices(range(1, 5), [1, 2, 3, 4])[0]
    digits_b = r.choices(range(1, 5), [3, 3, 3, 3])[0]
    a, b = draw.number(digits_a), draw.number(digits_b)
    if len(str(b)) > len(str(a)) and r.random() < 0.5:
        a, b = b, a
    question = draw.styled(draw.pick(MULTIPLY_QUESTIONS).format(a=a, b=b))
    # The longer number is taken apart.
    x, y = (a, b) if len(str(a)) >= len(str(b)) else (b, a)
    steps = multiply_lines(x, y)
    if (x, y) != (a, b):
        steps = [f"{a}*{b}={x}*{y}"] + steps
    return Turn(question, steps, str(a * b))
