"""Nested expressions with + - * / and parentheses, reduced one operation at a time."""

from abacus.data.draw import Draw, Turn

# A number, or (operator, left, right).
Tree = int | tuple[str, "Tree", "Tree"]

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
QUESTIONS = [
    "Evaluate {e}.",
    "What is {e}?",
    "Compute {e}.",
    "{e}",
    "Calculate {e}.",
    "{e} = ?",
    "Simplify {e}.",
    "What is the value of {e}?",
]


def value(tree: Tree) -> int:
    """The tree's value; divisions in a tree are exact."""
    if isinstance(tree, int):
        return tree
    operator, left, right = tree
    a, b = value(left), value(right)
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    return a * b if operator == "*" else a // b


def grow(draw: Draw, operations: int) -> Tree:
    """A random tree of `operations` operations whose subtractions stay at or above zero."""
    r = draw.random
    if operations == 0:
        return r.randrange(10) if r.random() < 0.35 else r.randrange(10, 100)
    if operations == 1 and r.random() < 0.12:
        divisor = r.randrange(2, 13)
        return ("/", divisor * r.randrange(1, 25), divisor)
    left = r.randrange(operations)
    a, b = grow(draw, left), grow(draw, operations - 1 - left)
    value_a, value_b = value(a), value(b)
    x = r.random()
    if x < 0.3 and min(value_a, value_b) <= 12 and max(value_a, value_b) <= 99:
        return ("*", a, b)
    if x < 0.36 and 2 <= value_b <= 12 and value_a % value_b == 0 and value_a > 0:
        return ("/", a, b)
    if x < 0.65:
        return ("-", b, a) if value_a < value_b else ("-", a, b)
    return ("+", a, b)


def show(tree: Tree, all_parentheses: bool = False, space: str = "") -> str:
    """The tree as text, with the parentheses it needs, or with all of them."""
    if isinstance(tree, int):
        return str(tree)
    operator, left, right = tree
    a, b = show(left, all_parentheses, space), show(right, all_parentheses, space)
    own = PRECEDENCE[operator]
    if not isinstance(left, int) and (all_parentheses or PRECEDENCE[left[0]] < own):
        a = f"({a})"
    if not isinstance(right, int) and (all_parentheses or PRECEDENCE[right[0]] <= own):
        b = f"({b})"
    return a + space + operator + space + b


def reduce_once(tree: Tree) -> tuple[Tree, str]:
    """Reduces the leftmost operation on two numbers: (what remains, 'a op b=v')."""
    operator, left, right = tree
    if not isinstance(left, int):
        left, equation = reduce_once(left)
        return (operator, left, right), equation
    if not isinstance(right, int):
        right, equation = reduce_once(right)
        return (operator, left, right), equation
    result = value(tree)
    return result, f"{left}{operator}{right}={result}"


def expr(draw: Draw) -> Turn:
    """An expression of one to six operations with a value of at most five digits."""
    r = draw.random
    while True:
        tree = grow(draw, 1 if r.random() < 0.1 else r.randint(2, 6))
        if 0 <= value(tree) <= 99999:
            break
    all_parentheses = r.random() < 0.3
    text = show(tree, all_parentheses, " " if r.random() < 0.3 else "")
    question = draw.pick(QUESTIONS).format(e=text)
    if question[0] not in "(0123456789":
        question = draw.styled(question)
    steps = []
    while not isinstance(tree, int):
        tree, equation = reduce_once(tree)
        done = isinstance(tree, int)
        steps.append(equation if done else equation + "|" + show(tree, all_parentheses))
    return Turn(question, steps, str(tree))
