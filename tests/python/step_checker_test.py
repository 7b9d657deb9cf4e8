"""The checker of step lines, on its own and on the generators' steps."""

import json
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "abacus"
sys.path.insert(0, str(MODEL / "train"))

from abacus.step_checker import check_line  # noqa: E402


class StepCheckerTest(unittest.TestCase):
    def test_true_false_and_unchecked_lines(self):
        for line, wanted in [
            ("48*7=336", True),
            ("48*7=337", False),
            ("4839+772|9+2+0=11|1", True),
            ("4839+772|9+2+0=12|1", False),
            ("12-5=7|(3+4)*7", True),
            ("min(45,12)=12", True),
            ("max(45,12)=12", False),
            ("8*(-7)+13=-43", True),
            ("7921<8000<8100", True),
            ("10!=20", True),
            ("7/2=3", False),
            ("x=-56/8=-7", True),
            ("c=85", None),
            ("2^21=1", None),
            ("1/0=1", None),
            ("(((((1", None),
            ("no equation", None),
        ]:
            self.assertIs(check_line(line), wanted, line)

    def test_a_quotation_must_be_in_the_question(self):
        line = "The code of Kavorin is 4821."
        self.assertIs(check_line(line, f"Read this. {line} What is it?"), True)
        self.assertIs(check_line(line, "The code of Kavorin is 48211."), False)

    def test_no_step_of_the_evaluation_set_is_false(self):
        checked = 0
        for path in sorted((MODEL / "eval").glob("*.jsonl")):
            if path.name == "reference.jsonl":
                continue
            for line in path.read_text().splitlines():
                record = json.loads(line)
                for step in record["steps"] or []:
                    verdict = check_line(step, record["messages"][-1]["content"])
                    self.assertIsNot(verdict, False, f"{record['id']}: {step}")
                    checked += verdict is True
        self.assertGreater(checked, 5000)


if __name__ == "__main__":
    unittest.main()
