"""What the README shows is what works: its grpcurl command and its Python client run as they stand
there, but for the port."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

from harness import ROOT, STUBS, ClusterTest

README_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


def fenced(language):
    """The README's one block of this language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(),
                        re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        raise AssertionError(f"README.md: found {len(blocks)} blocks of {language}, wanted 1")
    return blocks[0]


class Readme(ClusterTest):
    def setUp(self):
        super().setUp()
        self.coordinator = self.start_coordinator()
        self.start_worker(self.coordinator)
        self.wait_workers(self.coordinator, 1)

    def run_here(self, command, **environment):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400,
                              env={**os.environ, **environment})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_grpcurl_command(self):
        grpcurl = self.run_here(["scripts/install-grpcurl"]).strip()
        command, replaced = README_ADDRESS.subn(self.coordinator.address, fenced("sh"))
        self.assertEqual(replaced, 1)
        path = f"{pathlib.Path(grpcurl).parent}:{os.environ['PATH']}"
        out = self.run_here(["bash", "-c", command], PATH=path)
        self.assertRegex(out, r'"answer": "\s*408')

    def test_python_client(self):
        client = self.folder / "client.py"
        client.write_text(fenced("python"))
        out = self.run_here([sys.executable, str(client), self.coordinator.address,
                             "What is 12 * 34?"], PYTHONPATH=STUBS)
        self.assertEqual(out.split()[-1], "408")

    def test_python_client_is_the_one_in_the_tree(self):
        self.assertEqual(fenced("python"), (ROOT / "tests/clients/generate.py").read_text())

    def test_client_scripts(self):
        for script in ("run_generate", "run_grpcurl"):
            with self.subTest(script):
                out = self.run_here([f"tests/clients/{script}", self.coordinator.address,
                                     "What is 12 * 34?"])
                self.assertIn("408", out)


if __name__ == "__main__":
    unittest.main()
