"""The generators still give the prompts of models/abacus/eval, and needles of any length."""

import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "abacus"
sys.path.insert(0, str(MODEL / "train"))

from abacus.data.draw import Turn  # noqa: E402
from abacus.data.samples import EVALUATED, Generator, Sample, render  # noqa: E402
from abacus.evaluation_set import LONG, items, record  # noqa: E402
from abacus.tokenizer import TARGET_BIT, Tokenizer  # noqa: E402

TOKENIZER = Tokenizer(MODEL / "tokenizer.json")
NAME = re.compile(r"(?<= of )[A-Z][a-z]+(?= is \d)")


def on_disk(family: str, number: int) -> list[dict]:
    lines = (MODEL / "eval" / f"{family}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:number]]


def generated(family: str, number: int) -> list[dict]:
    made = items(family, number, TOKENIZER)
    return [record(family, i, item, TOKENIZER) for i, item in enumerate(made)]


def without_names(record: dict) -> str:
    text = record["messages"][-1]["content"]
    names = "|".join(set(NAME.findall(text)))
    return re.sub(rf"\b({names})\b", "NAME", text)


class EvaluationSetTest(unittest.TestCase):
    def test_families_give_the_prompts_on_disk(self):
        for family in EVALUATED:
            if family != "needle":
                with self.subTest(family):
                    self.assertEqual(generated(family, 20), on_disk(family, 20))

    def test_long_needles_differ_from_those_on_disk_only_in_the_order_of_names(self):
        # The files were made when the names' order followed Python's hash of a process.
        for family in LONG:
            if family == "needle_64k":
                continue
            with self.subTest(family):
                made, wanted = generated(family, 4), on_disk(family, 4)
                self.assertEqual([m["answer"] for m in made], [w["answer"] for w in wanted])
                self.assertEqual(list(map(without_names, made)), list(map(without_names, wanted)))

    def test_short_needles_differ_from_those_on_disk_only_in_the_order_of_names(self):
        # From the 17th on, a name that occurs twice changes how much text fits.
        made, wanted = generated("needle", 16), on_disk("needle", 16)
        self.assertEqual(list(map(without_names, made)), list(map(without_names, wanted)))


class MakeNeedlesTest(unittest.TestCase):
    def make(self, *arguments: str) -> list[dict]:
        command = [sys.executable, str(MODEL / "train" / "make_needles"), *arguments]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in output.splitlines()]

    def test_gives_prompts_of_about_the_length_asked(self):
        for tokens in (1000, 64000):
            records = self.make("--tokens", str(tokens), "--count", "2")
            self.assertEqual(len(records), 2)
            for needle in records:
                self.assertTrue(0.95 * tokens < needle["prompt_tokens"] <= tokens, needle["id"])
                self.assertIn(needle["steps"][0], needle["messages"][0]["content"])
                self.assertTrue(needle["steps"][0].endswith(f" is {needle['answer']}."))

    def test_a_seed_gives_the_same_text_in_every_process(self):
        self.assertEqual(self.make("--tokens", "2000"), self.make("--tokens", "2000"))

    def test_refuses_lengths_that_the_model_cannot_hold(self):
        with self.assertRaises(subprocess.CalledProcessError) as raised:
            self.make("--tokens", "70000")
        self.assertIn("70000", raised.exception.stderr)


class TokenizerTest(unittest.TestCase):
    def test_gives_the_ids_of_the_golden_prompts(self):
        folder = ROOT / "tests" / "golden" / "abacus"
        for line in (folder / "prompts.jsonl").read_text().splitlines():
            prompt = json.loads(line)
            data = (folder / f"{prompt['name']}.safetensors").read_bytes()
            header_bytes = int.from_bytes(data[:8], "little")
            entry = json.loads(data[8 : 8 + header_bytes])["input_ids"]
            begin, end = (8 + header_bytes + x for x in entry["data_offsets"])
            wanted = [int.from_bytes(data[at : at + 8], "little") for at in range(begin, end, 8)]
            ids = TOKENIZER.encode_prompt(prompt["system"], prompt["question"])
            self.assertEqual(ids, wanted, prompt["name"])

    def test_decodes_what_it_encoded(self):
        text = "What is 12*34?\nThe code of Brafan is 1416."
        self.assertEqual(TOKENIZER.decode(TOKENIZER.encode(text)), text)

    def test_only_answers_are_targets(self):
        turns = [Turn("1+1", None, "2", history=True), Turn("2+2", ["2+2=4"], "4")]
        ids = TOKENIZER.encode_segments(render(Sample("addsub", None, turns)))
        targets = TOKENIZER.decode(i - TARGET_BIT for i in ids if i & TARGET_BIT)
        self.assertEqual(targets, "<think>\n2+2=4\n</think>\n4<|end|>")


class MixtureTest(unittest.TestCase):
    def test_samples_stay_within_the_training_length(self):
        generator = Generator(5, TOKENIZER.count)
        families = set()
        for _ in range(300):
            sample = generator.sample(max_tokens=960)
            families.add(sample.family)
            self.assertLessEqual(len(TOKENIZER.encode_segments(render(sample))), 2048)
        self.assertGreaterEqual(families, set(EVALUATED) - {"check", "short"})


if __name__ == "__main__":
    unittest.main()
