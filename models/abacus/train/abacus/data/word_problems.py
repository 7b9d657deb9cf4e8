"""Word problems of one to three operations about people, things, money, time and distance."""

from typing import NamedTuple

from abacus.data.draw import Draw, Turn
from abacus.data.vocabulary import BOXES, ITEMS, PEOPLE


class Scene(NamedTuple):
    """What a problem may be about: two people, two kinds of thing, a container and numbers."""

    person: str
    other: str
    item: str
    item2: str
    box: str
    boxes: str
    a: int
    b: int
    c: int
    s: int
    t: int


def _gain(draw: Draw, x: Scene) -> Turn:
    question = draw.pick(
        [
            f"{x.person} has {x.a} {x.item} and gets {x.b} more. "
            f"How many {x.item} does {x.person} have now?",
            f"{x.person} had {x.a} {x.item}. {x.other} gave {x.person} {x.b} {x.item}. "
            f"How many {x.item} does {x.person} have?",
        ]
    )
    return Turn(question, [f"{x.a}+{x.b}={x.a + x.b}"], str(x.a + x.b))


def _loss(draw: Draw, x: Scene) -> Turn:
    a, b = max(x.a, x.b) + 1, min(x.a, x.b)
    question = draw.pick(
        [
            f"{x.person} has {a} {x.item} and gives {b} to {x.other}. How many {x.item} are left?",
            f"There were {a} {x.item}. {x.person} took {b} of them. How many {x.item} remain?",
        ]
    )
    return Turn(question, [f"{a}-{b}={a - b}"], str(a - b))


def _boxes(draw: Draw, x: Scene) -> Turn:
    question = draw.pick(
        [
            f"A {x.box} holds {x.a} {x.item}. How many {x.item} are in {x.s} {x.boxes}?",
            f"{x.person} fills {x.s} {x.boxes} with {x.a} {x.item} each. "
            f"How many {x.item} is that?",
        ]
    )
    return Turn(question, [f"{x.s}*{x.a}={x.s * x.a}"], str(x.s * x.a))


def _share(draw: Draw, x: Scene) -> Turn:
    total = x.s * x.a
    question = draw.pick(
        [
            f"{x.person} shares {total} {x.item} equally among {x.s} friends. "
            f"How many does each friend get?",
            f"{total} {x.item} are packed into {x.s} {x.boxes} equally. "
            f"How many {x.item} are in each {x.box}?",
        ]
    )
    return Turn(question, [f"{total}/{x.s}={x.a}"], str(x.a))


def _buy_and_give(draw: Draw, x: Scene) -> Turn:
    total = x.a + x.b
    given = draw.random.randint(1, total)
    question = (
        f"{x.person} has {x.a} {x.item}. {x.person} buys {x.b} more and then gives {given} to "
        f"{x.other}. How many {x.item} does {x.person} have now?"
    )
    steps = [f"{x.a}+{x.b}={total}", f"{total}-{given}={total - given}"]
    return Turn(question, steps, str(total - given))


def _boxes_and_more(draw: Draw, x: Scene) -> Turn:
    bought = x.s * x.a
    question = (
        f"{x.person} buys {x.s} {x.boxes} of {x.item} with {x.a} {x.item} in each {x.box}. "
        f"{x.person} already had {x.b} {x.item}. How many {x.item} does {x.person} have in all?"
    )
    steps = [f"{x.s}*{x.a}={bought}", f"{bought}+{x.b}={bought + x.b}"]
    return Turn(question, steps, str(bought + x.b))


def _boxes_sold(draw: Draw, x: Scene) -> Turn:
    total = x.s * x.a
    sold = draw.random.randint(1, total)
    question = (
        f"There are {x.s} {x.boxes} with {x.a} {x.item} each. {sold} {x.item} are sold. "
        f"How many {x.item} are left?"
    )
    steps = [f"{x.s}*{x.a}={total}", f"{total}-{sold}={total - sold}"]
    return Turn(question, steps, str(total - sold))


def _two_prices(draw: Draw, x: Scene) -> Turn:
    first, second = x.a * x.s, x.c * x.t
    question = (
        f"One of the {x.item} costs {x.s} coins and one of the {x.item2} costs {x.t} coins. "
        f"How much do {x.a} {x.item} and {x.c} {x.item2} cost?"
    )
    steps = [
        f"{x.a}*{x.s}={first}",
        f"{x.c}*{x.t}={second}",
        f"{first}+{second}={first + second}",
    ]
    return Turn(question, steps, str(first + second))


def _more_than(draw: Draw, x: Scene) -> Turn:
    more = x.a + x.b
    question = (
        f"{x.person} has {x.a} {x.item}. {x.other} has {x.b} more {x.item} than {x.person}. "
        f"How many {x.item} do they have together?"
    )
    return Turn(question, [f"{x.a}+{x.b}={more}", f"{x.a}+{more}={x.a + more}"], str(x.a + more))


def _times_as_many(draw: Draw, x: Scene) -> Turn:
    times = x.s * x.a
    question = (
        f"{x.person} has {x.a} {x.item}. {x.other} has {x.s} times as many. "
        f"How many {x.item} do they have together?"
    )
    steps = [f"{x.s}*{x.a}={times}", f"{x.a}+{times}={x.a + times}"]
    return Turn(question, steps, str(x.a + times))


def _distance(draw: Draw, x: Scene) -> Turn:
    question = draw.pick(
        [
            f"A train runs at {x.a} km per hour. How far does it go in {x.s} hours?",
            f"{x.person} rides {x.a} km every day. How far does {x.person} ride in {x.s} days?",
        ]
    )
    return Turn(question, [f"{x.a}*{x.s}={x.a * x.s}"], str(x.a * x.s))


def _pages(draw: Draw, x: Scene) -> Turn:
    pages = x.s * x.a
    question = (
        f"{x.person} reads a book of {pages} pages, {x.s} pages a day. How many days does it take?"
    )
    return Turn(question, [f"{pages}/{x.s}={x.a}"], str(x.a))


def _three_parts(draw: Draw, x: Scene) -> Turn:
    total = x.a + x.b + x.c
    question = draw.pick(
        [
            f"{x.person} picks {x.a} {x.item} on Monday, {x.b} on Tuesday and {x.c} on Friday. "
            f"How many {x.item} in all?",
            f"A shop sold {x.a} {x.item}, {x.b} {x.item2} and {x.c} cups. "
            f"How many things did it sell?",
        ]
    )
    steps = [f"{x.a}+{x.b}={x.a + x.b}", f"{x.a + x.b}+{x.c}={total}"]
    return Turn(question, steps, str(total))


def _equal_parts(draw: Draw, x: Scene) -> Turn:
    people = draw.random.randint(3, 12)
    total = x.a * people
    question = (
        f"{x.person} and {people - 1} friends pay {total} coins in equal parts. "
        f"How much does each pay?"
    )
    return Turn(question, [f"{people - 1}+1={people}", f"{total}/{people}={x.a}"], str(x.a))


def _change(draw: Draw, x: Scene) -> Turn:
    price = x.s * x.a
    paid = price + draw.random.randint(1, 99)
    question = (
        f"{x.person} buys {x.s} {x.item} at {x.a} coins each and pays with {paid} coins. "
        f"How much change does {x.person} get?"
    )
    steps = [f"{x.s}*{x.a}={price}", f"{paid}-{price}={paid - price}"]
    return Turn(question, steps, str(paid - price))


def _age(draw: Draw, x: Scene) -> Turn:
    r = draw.random
    old, older = r.randint(3, 60), r.randint(2, 30)
    years = r.randint(1, 20)
    age = old + older
    question = (
        f"{x.person} is {old} years old. {x.other} is {older} years older. "
        f"How old will {x.other} be in {years} years?"
    )
    steps = [f"{old}+{older}={age}", f"{age}+{years}={age + years}"]
    return Turn(question, steps, str(age + years))


KINDS = (
    _gain,
    _loss,
    _boxes,
    _share,
    _buy_and_give,
    _boxes_and_more,
    _boxes_sold,
    _two_prices,
    _more_than,
    _times_as_many,
    _distance,
    _pages,
    _three_parts,
    _equal_parts,
    _change,
    _age,
)


def word(draw: Draw) -> Turn:
    """One of the kinds above about a random scene."""
    r = draw.random
    person, other = r.sample(PEOPLE, 2)
    item, item2 = r.sample(ITEMS, 2)
    box = draw.pick(list(BOXES))
    a, b, c = r.randint(2, 99), r.randint(2, 99), r.randint(2, 60)
    s, t = r.randint(2, 12), r.randint(2, 12)
    scene = Scene(person, other, item, item2, box, BOXES[box], a, b, c, s, t)
    return KINDS[r.randrange(len(KINDS))](draw, scene)
