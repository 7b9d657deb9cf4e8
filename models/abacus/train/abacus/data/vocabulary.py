"""Words of the generated text."""

PEOPLE = (
    "Mia Tom Anna Ben Lena Omar Ruth Ivan Nora Paul Sara Leo Zoe Max Ella Hugo Ida Noah Eva Sam "
    "Lily Finn Rosa Carl Maya Igor Jane Kofi Lucy Marc"
).split()
ITEMS = (
    "apples pens books coins cards eggs stamps shells marbles cookies tickets balloons pencils "
    "oranges stickers flowers cups bricks candles lemons"
).split()
BOXES = {
    "box": "boxes",
    "bag": "bags",
    "crate": "crates",
    "basket": "baskets",
    "shelf": "shelves",
    "tray": "trays",
    "packet": "packets",
    "jar": "jars",
}

# Syllables of invented names.
ONSET = "b c d f g h k l m n p r s t v z br dr gr kr tr st sh th".split()
VOWEL = "a e i o u".split()
CODA = ["", "", "", "n", "r", "l", "s", "m", "x", "t"]

# Sentences around the facts of a long context.
ADJECTIVES = "old young quiet tall clever tired happy careful small brave".split()
NOUNS = (
    "farmer teacher sailor baker doctor painter driver singer pilot gardener horse cat river train "
    "garden tower bridge market"
).split()
VERBS = (
    "walked to",
    "looked at",
    "waited near",
    "came from",
    "went past",
    "stood by",
    "returned to",
    "drove to",
)
PLACES = (
    "the market",
    "the harbour",
    "the station",
    "the old bridge",
    "the library",
    "the forest",
    "the lake",
    "the square",
    "the mill",
    "the school",
)
TIMES = (
    "in the morning",
    "at noon",
    "in the evening",
    "after the rain",
    "before winter",
    "on Sunday",
    "late at night",
    "last year",
    "every day",
    "in spring",
)
COUNTED = "ships boats trees birds houses lamps carts sheep chairs windows".split()
ATTRIBUTES = ["code", "badge", "key", "room", "locker", "number"]

NEUTRAL_SYSTEM = [
    "You are Abacus, a careful reasoning model.",
    "Think step by step.",
    "You are a helpful assistant.",
    "Show your steps.",
    "Reason carefully and check your work.",
]
SHORT_SYSTEM = [
    "Answer briefly.",
    "Give only the answer.",
    "No steps, just the answer.",
    "Reply with the final answer only.",
    "Be brief.",
]
