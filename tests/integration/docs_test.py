"""docs/programs.md says what the programs' --help says: every flag with its default, no other, and
YAML examples that the programs take."""

import re
import subprocess
import tempfile
import unittest

from harness import ROOT, program_path

COMMON = {"--help", "--config", "--print-config"}
COMMANDS = {name: [name] for name in ("troupe-cache", "troupe-coordinator", "troupe-worker")}
COMMANDS |= {f"troupe {name}": ["troupe", name]
             for name in ("run", "serve", "status", "inspect", "quantize", "bench")}


def run(command, *arguments):
    program, *rest = COMMANDS[command]
    return subprocess.run([program_path(program), *rest, *arguments], capture_output=True,
                          text=True, timeout=60, cwd=ROOT)


def sections():
    """The text under each `## ` heading."""
    parts = re.split(r"^## (.*)$", (ROOT / "docs/programs.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def flags_of_help(command):
    """{flag: default}, from lines like `  -o,--output=text   How to print.`"""
    text = run(command, "--help").stdout.split("Options:")[1].split("Examples:")[0]
    flags = {}
    for names, value in re.findall(r"^  (-\S*?)(?:=(\S*))?(?:\s|$)", text, re.MULTILINE):
        longest = names.replace("{false}", "").split(",")
        flag = next(name for name in longest if name.startswith("--"))
        flags[flag] = value
    return {flag: value for flag, value in flags.items() if flag not in COMMON}


class Programs(unittest.TestCase):
    def test_every_flag_and_default_is_there_and_no_other(self):
        for command in COMMANDS:
            with self.subTest(command):
                rows = re.findall(r"^\| (`-.*?`) \| (.*?) \|", sections()[command], re.MULTILINE)
                found = {re.search(r"--[a-z-]+", flag)[0]: value for flag, value in rows}
                wanted = flags_of_help(command)
                self.assertEqual(sorted(found), sorted(wanted))
                for flag, value in wanted.items():
                    if value:
                        self.assertEqual(found[flag], f"`{value}`", flag)

    def test_yaml_examples_are_taken(self):
        for command in COMMANDS:
            with self.subTest(command), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                [example] = re.findall(r"^```yaml\n(.*?)^```$", sections()[command],
                                       re.MULTILINE | re.DOTALL)
                file.write(example)
                file.flush()
                done = run(command, "--config", file.name, "--print-config")
                self.assertEqual(done.returncode, 0, done.stderr)
                for line in example.splitlines():
                    if not line.startswith("#") and "B" not in line.split(": ")[1]:
                        self.assertIn(line, done.stdout)


if __name__ == "__main__":
    unittest.main()
