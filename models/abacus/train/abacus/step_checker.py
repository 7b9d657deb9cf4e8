"""Checks the step lines of an answer by exact arithmetic."""

import operator
import re
from fractions import Fraction

FACT = re.compile(r"^The \w+ of \w+ is \d+\.$")
NUMERIC = re.compile(r"^[0-9+\-*/^() ]+$")
TERM = re.compile(r"\d+|[+\-*/^()]")
EXTREME = re.compile(r"(min|max)\(([\d,]+)\)")
RELATIONS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
MAX_EXPONENT = 20


class _Parser:
    """Recursive descent over + - * / ^ and parentheses; ValueError where it cannot be read."""

    def __init__(self, text: str):
        self.terms = TERM.findall(text.replace(" ", ""))
        self.at = 0

    def parse(self) -> Fraction:
        """The value of the whole text."""
        value = self._sum()
        if self.at != len(self.terms):
            raise ValueError
        return value

    def _peek(self) -> str:
        return self.terms[self.at] if self.at < len(self.terms) else ""

    def _take(self) -> str:
        self.at += 1
        return self.terms[self.at - 1]

    def _atom(self) -> Fraction:
        if self._peek() == "-":
            self._take()
            return -self._atom()
        if self._peek() == "(":
            self._take()
            value = self._sum()
            if self._peek() != ")":
                raise ValueError
            self._take()
            return value
        if not self._peek().isdigit():
            raise ValueError
        return Fraction(int(self._take()))

    def _power(self) -> Fraction:
        value = self._atom()
        if self._peek() == "^":
            self._take()
            exponent = self._atom()
            if not 0 <= exponent <= MAX_EXPONENT:
                raise ValueError
            value = value ** int(exponent)
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while self._peek() in ("*", "/"):
            symbol, other = self._take(), self._power()
            if symbol == "/" and other == 0:
                raise ValueError
            value = value * other if symbol == "*" else value / other
        return value

    def _sum(self) -> Fraction:
        value = self._product()
        while self._peek() in ("+", "-"):
            symbol, other = self._take(), self._product()
            value = value + other if symbol == "+" else value - other
        return value


def _value(text: str) -> Fraction | None:
    """The value of one side of an equation; None where it is no number."""
    if match := EXTREME.fullmatch(text):
        numbers = [int(x) for x in match[2].split(",") if x]
        function = min if match[1] == "min" else max
        return Fraction(function(numbers)) if numbers else None
    if not NUMERIC.match(text):
        return None
    try:
        return _Parser(text).parse()
    except (ValueError, RecursionError):
        return None


def _check_chain(text: str) -> bool | None:
    """Whether a chain like `a=b<c` holds between the sides that have a value."""
    parts = re.split(r"(!=|=|<|>)", text)
    last, result = None, None
    for i, side in enumerate(parts[::2]):
        value = _value(side)
        if value is None:
            continue
        if last is not None:
            holds = RELATIONS[parts[2 * i - 1]](last, value)
            result = holds if result is None else result and holds
        last = value
    return result


def check_line(line: str, question: str = "") -> bool | None:
    """Whether a step is true; None where it says nothing that can be checked.

    A quoted fact is true when `question` holds it.
    """
    if FACT.match(line):
        return line in question
    chains = [_check_chain(part) for part in line.split("|") if re.search(r"[=<>]", part)]
    known = [chain for chain in chains if chain is not None]
    return all(known) if known else None
