"""The `troupe` program: what it prints, where, and the exit codes it ends with."""

import json
import os
import re
import signal
import subprocess
import tempfile
import unittest

from harness import (INFERENCE, MODEL, ROOT, chat_request, dial, generate, health, program_path,
                     wait_until)

QUESTION = "What is 4821 * 7306?"
ANSWER = "35222226"
FIGURES = re.compile(r"^TTFT \d+\.\d ms, \d+ tokens/s, \d+\.\d % of heads skipped, "
                     r"(\d+) KV blocks reused$", re.MULTILINE)
USAGE_ERROR = 2


class TroupeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="troupe-test-")
        self.addCleanup(folder.cleanup)
        # Where nothing else is said, data goes there.
        self.environment = {**os.environ, "XDG_DATA_HOME": folder.name}

    def troupe(self, *arguments, code=0, stdin=""):
        done = subprocess.run([program_path("troupe"), *map(str, arguments)], cwd=ROOT, input=stdin,
                              capture_output=True, text=True, timeout=300, env=self.environment)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def serve(self, *arguments):
        """Starts `troupe serve`; returns the process and its address when it listens."""
        log = tempfile.TemporaryFile()
        self.addCleanup(log.close)
        server = subprocess.Popen(
            [program_path("troupe"), "serve", "--model", str(MODEL), "--listen", "127.0.0.1:0",
             *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        line = server.stdout.readline()
        self.assertRegex(line, r"^listening on 127\.0\.0\.1:\d+\n$")
        return server, line.split()[-1]


class Run(TroupeTest):
    def test_steps_answer_and_figures(self):
        done = self.troupe("run", "--model", "models/abacus", QUESTION)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[-1].strip(), ANSWER)
        self.assertGreater(len(lines), 5, "the reasoning steps stand before the answer")
        self.assertIn("4821", lines[0])
        self.assertRegex(done.stderr, FIGURES)

    def test_json(self):
        done = self.troupe("run", "--model", "models/abacus", "-o", "json", QUESTION)
        reply = json.loads(done.stdout)
        self.assertEqual(reply["answer"].strip(), ANSWER)
        self.assertGreater(len(reply["steps"]), 5)
        self.assertEqual(reply["finish_reason"], "REASON_STOP")
        self.assertGreater(reply["output_tokens"], 0)

    def test_chat_remembers_and_ends_with_its_input(self):
        done = self.troupe("run", "--model", "models/abacus",
                           stdin="What is 12 * 34?\nWhat is 5 + 6?\n")
        self.assertIn("408", done.stdout)
        self.assertIn("11", done.stdout)

    def test_wrong_usage(self):
        self.assertIn("wanted", self.troupe("flee", code=USAGE_ERROR).stderr)
        self.assertIn("Usage", self.troupe(code=USAGE_ERROR).stderr)
        done = self.troupe("run", "--modle", "models/abacus", QUESTION, code=USAGE_ERROR)
        self.assertIn('did you mean "--model"', done.stderr)
        self.troupe("run", QUESTION, code=USAGE_ERROR)

    def test_what_is_missing_is_named(self):
        self.assertIn("/nonexistent",
                      self.troupe("run", "--model", "/nonexistent", QUESTION, code=1).stderr)
        self.assertIn("127.0.0.1:1",
                      self.troupe("run", "--target", "127.0.0.1:1", QUESTION, code=1).stderr)
        self.assertIn("127.0.0.1:1", self.troupe("status", "--target", "127.0.0.1:1",
                                                 code=1).stderr)

    def test_help_of_every_command_has_examples(self):
        for command in ("run", "serve", "status", "inspect", "bench"):
            with self.subTest(command):
                self.assertIn("Examples:", self.troupe(command, "--help").stdout)

    def test_inspect(self):
        self.assertIn("abacus", self.troupe("inspect", "models/abacus").stdout.lower())
        json.loads(self.troupe("inspect", "models/abacus", "-o", "json").stdout)
        self.troupe("inspect", "/nonexistent", code=1)

    def test_inspect_ranks(self):
        flags = ("inspect", "models/abacus", "--ranks", "2", "--memory", "1GiB")
        self.assertIn("layout               tp2", self.troupe(*flags, "--layout", "tp2").stdout)
        ranks = json.loads(self.troupe(*flags, "-o", "json").stdout)
        self.assertEqual(len(ranks["ranks"]), 2)
        self.assertEqual(ranks["candidates"][0]["layout"], ranks["layout"])
        refused = self.troupe("inspect", "models/abacus", "--ranks", "3", "--layout", "tp3", code=1)
        self.assertIn("8 / 3 leaves 2", refused.stderr)


class Serve(TroupeTest):
    def test_serve_run_status_and_a_clean_end(self):
        server, address = self.serve()
        channel = dial(address)
        self.addCleanup(channel.close)
        wait_until(lambda: health(channel, INFERENCE) == "SERVING", "the service is ready")
        self.assertEqual(generate(channel, chat_request(QUESTION)).answer.strip(), ANSWER)

        done = self.troupe("run", "--target", address, QUESTION)
        self.assertEqual(done.stdout.splitlines()[-1].strip(), ANSWER)

        self.assertRegex(self.troupe("status", "--target", address).stdout,
                         r"(?s)model abacus.*ready.*requests: 2 accepted.*worker .*: ready")
        status = json.loads(self.troupe("status", "--target", address, "-o", "json").stdout)
        self.assertTrue(status["ready"])
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(timeout=60), 0)

    def test_interrupt_ends_it_too(self):
        server, _ = self.serve("--no-use-cache")
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(timeout=60), 0)

    def test_bench_measures_a_server(self):
        _, address = self.serve()
        done = self.troupe("bench", "--target", address, "--requests", 4, "--concurrency", 2,
                           "--output-tokens", 8, "-o", "json")
        json.loads(done.stdout)


class Evaluation(TroupeTest):
    def test_sample_in_f32_says_what_the_reference_says(self):
        families = sorted(str(path) for path in (MODEL / "eval").glob("*.jsonl")
                          if not path.name.startswith(("needle_", "reference")))
        done = subprocess.run(
            ["bench/eval", *families, "--reference", str(MODEL / "eval/reference.jsonl"),
             "--limit", "6", "--dtype", "f32", "--min-reference-equal", "0.99",
             "--troupe", program_path("troupe")],
            cwd=ROOT, capture_output=True, text=True, timeout=580, env=self.environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
