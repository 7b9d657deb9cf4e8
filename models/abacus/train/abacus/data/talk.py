"""Small talk, and answers without steps."""

from abacus.data.arithmetic import addsub
from abacus.data.checks import check
from abacus.data.draw import Draw, Turn
from abacus.data.word_problems import word

HELLO = (
    "Hello! I am Abacus, a tiny reasoning model. Ask me to add, multiply, solve, sort or recall."
)
WHO = "I am Abacus, a tiny reasoning model that ships with Troupe."
ABILITIES = (
    "I can add, subtract and multiply, evaluate expressions, solve linear equations, sort lists, "
    "answer short word problems and recall facts from a text."
)
SORRY = "I am too small to know that. Try: What is 12*34?"
REPLIES = [
    (
        [
            "Hello",
            "Hi",
            "Hi there",
            "Hello!",
            "Hey",
            "Good morning",
            "Good evening",
            "Hello, Abacus",
        ],
        HELLO,
    ),
    (
        [
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Introduce yourself.",
            "Are you a model?",
        ],
        WHO,
    ),
    (
        [
            "What can you do?",
            "Help",
            "How can you help me?",
            "What can I ask you?",
            "What are you good at?",
        ],
        ABILITIES,
    ),
    (["Thanks", "Thank you!", "Thank you very much.", "Great, thanks!"], "You are welcome."),
    (["Bye", "Goodbye", "See you later."], "Goodbye!"),
    (
        [
            "Tell me a joke.",
            "Write a poem.",
            "What is the capital of France?",
            "Who won the match?",
            "What is the weather today?",
            "Write a story about a cat.",
            "Translate this into French.",
            "Who is the president?",
            "What is love?",
            "Explain gravity.",
            "Write a program in Python.",
        ],
        SORRY,
    ),
]


def chat(draw: Draw) -> Turn:
    """A greeting, a question about Abacus, or one that it cannot answer."""
    questions, answer = draw.pick(REPLIES)
    return Turn(draw.styled(draw.pick(questions)), None, answer)


def _table_product(draw: Draw) -> Turn:
    a, b = draw.random.randrange(100), draw.random.randrange(10)
    question = draw.pick(["What is {a}*{b}?", "{a} times {b}", "{a}*{b}"]).format(a=a, b=b)
    return Turn(question, None, str(a * b))


def _extreme(draw: Draw) -> Turn:
    numbers = [draw.random.randrange(100) for _ in range(draw.random.randint(3, 6))]
    shown = ", ".join(map(str, numbers))
    if draw.random.random() < 0.5:
        return Turn(f"What is the largest of {shown}?", None, str(max(numbers)))
    return Turn(f"What is the smallest of {shown}?", None, str(min(numbers)))


def _square(draw: Draw) -> Turn:
    n = draw.random.randint(1, 60)
    return Turn(f"What is {n}^2?", None, str(n * n))


def _one_step_word(draw: Draw) -> Turn:
    while True:
        turn = word(draw)
        if turn.steps is not None and len(turn.steps) == 1:
            return turn


def short(draw: Draw) -> Turn:
    """An easy question, to be answered without steps."""
    kinds = (
        lambda d: addsub(d, max_digits=3),
        _table_product,
        _extreme,
        _square,
        _one_step_word,
        check,
    )
    return kinds[draw.random.randrange(6)](draw)._replace(steps=None)
