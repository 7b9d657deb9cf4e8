"""The programs as a cluster: two workers share the load, a worker's death is not seen by clients,
a new one joins, and every program starts, refuses and ends as documented."""

import subprocess
import tempfile
import threading
import unittest

from harness import (INFERENCE, MODEL, ClusterTest, chat_request, generate_all, health,
                     program_path, wait_until)

STREAMS = 32


def mixed_requests():
    """Long answers, greedy and sampled; each seeded one has its own seed."""
    requests = []
    for i in range(STREAMS):
        question = (f"What is Fibonacci number {16 + i % 8}?" if i % 2 == 0 else
                    f"What is {2857 + 37 * i} * {7306 - 11 * i}?")
        sampling = {"temperature": 0.0} if i % 4 < 2 else {"temperature": 0.8, "seed": 1000 + i}
        # Long enough to be under way when the worker dies, whatever the model finds to say.
        requests.append(chat_request(question, sampling=sampling, max_tokens=96, ignore_eos=True,
                                     use_cache=i % 3 == 0))
    return requests


class ClusterOfTwo(ClusterTest):
    def setUp(self):
        super().setUp()
        self.cache = self.start_cache()
        self.coordinator = self.start_coordinator(cache=self.cache)
        self.assertEqual(health(self.coordinator.channel, INFERENCE), "NOT_SERVING")
        self.workers = {name: self.add_worker(name) for name in ("w1", "w2")}
        self.wait_workers(self.coordinator, 2)

    def add_worker(self, name):
        return self.start_worker(self.coordinator, "--name", name, cache=self.cache)

    def test_kill_in_mid_decode_loses_nothing_and_a_new_worker_joins(self):
        expected = generate_all(self.coordinator.channel, mixed_requests())
        for reply in expected:
            self.assertEqual(len(reply.tokens), 96)
            self.assertEqual(reply.usage.worker_changes, 0)
        served = {w.worker: w.tokens_generated for w in self.status(self.coordinator).workers}
        self.assertGreater(served["w1"], 0, "w1 got nothing of the load")
        self.assertGreater(served["w2"], 0, "w2 got nothing of the load")

        replies = self.generate_while_killing("w1")
        moved = [reply for reply in replies if reply.usage.worker_changes > 0]
        self.assertTrue(moved, "the killed worker had no stream")
        self.assertLess(len(moved), STREAMS, "the other worker had no stream")
        for reply, undisturbed in zip(replies, expected):
            self.assertEqual(reply.tokens, undisturbed.tokens)
            self.assertEqual(reply.text, undisturbed.text)
        self.assertTrue(any(len(reply.epochs) == 2 for reply in moved), "none moved in mid-decode")
        first_epoch = expected[0].epochs[0]
        for reply in replies:
            self.assertEqual(reply.epochs[-1], first_epoch + reply.usage.worker_changes)
        self.assert_idle(self.coordinator)

        self.add_worker("w1")
        self.wait_workers(self.coordinator, 2)
        for reply, undisturbed in zip(generate_all(self.coordinator.channel, mixed_requests()),
                                      expected):
            self.assertEqual(reply.text, undisturbed.text)
        joined = {w.worker: w for w in self.status(self.coordinator).workers}["w1"]
        self.assertGreater(joined.tokens_generated, 0, "the new worker got nothing of the load")
        self.assert_idle(self.coordinator)

    def generate_while_killing(self, name):
        """Runs the requests and kills a worker when every stream has begun to decode."""
        decoding = set()
        lock = threading.Lock()

        def on_event(event):
            if event.WhichOneof("event") != "tokens" or event.tokens.index < 4:
                return
            with lock:
                decoding.add(threading.get_ident())
                if len(decoding) == STREAMS // 4 and self.workers[name].process.poll() is None:
                    self.workers[name].process.kill()

        replies = generate_all(self.coordinator.channel, mixed_requests(), on_event)
        self.workers[name].kill()
        return replies

    def test_all_workers_gone_and_one_back(self):
        for worker in self.workers.values():
            worker.kill()
        wait_until(lambda: health(self.coordinator.channel, INFERENCE) == "NOT_SERVING",
                   "the service reports that no worker is ready")
        self.assertEqual(health(self.coordinator.channel, ""), "SERVING")
        self.add_worker("w3")
        self.wait_workers(self.coordinator, 1)
        [reply] = generate_all(self.coordinator.channel, [chat_request("What is 12 * 34?")])
        self.assertEqual(reply.answer.strip(), "408")

    def test_sigterm_ends_each_with_code_0(self):
        for program in [*self.workers.values(), self.coordinator, self.cache]:
            self.assertEqual(program.terminate(), 0, program.log)


class CommandLines(unittest.TestCase):
    PROGRAMS = ("troupe-cache", "troupe-coordinator", "troupe-worker")

    def run_program(self, name, *arguments):
        return subprocess.run([program_path(name), *arguments], capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL)

    def test_unknown_flags_are_refused_with_the_nearest_known(self):
        for name in self.PROGRAMS:
            with self.subTest(name):
                done = self.run_program(name, "--lisen", "127.0.0.1:0")
                self.assertEqual(done.returncode, 2)
                self.assertRegex(done.stderr, r'unknown flag "--lisen"; did you mean "?--listen')

    def test_unknown_keys_are_refused_with_their_line(self):
        for name in self.PROGRAMS:
            with self.subTest(name), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write("listen: 127.0.0.1:0\nlog_levle: info\n")
                file.flush()
                done = self.run_program(name, "--config", file.name)
                self.assertEqual(done.returncode, 2)
                self.assertIn(f'{file.name}:2: unknown key "log_levle"', done.stderr)
                self.assertIn('"log_level"', done.stderr)

    def test_help_and_print_config_end_with_code_0(self):
        for name in self.PROGRAMS:
            with self.subTest(name):
                done = self.run_program(name, "--help")
                self.assertEqual(done.returncode, 0)
                self.assertIn("Examples", done.stdout)
                done = self.run_program(name, *([] if name == "troupe-cache" else
                                                ["--model", str(MODEL)]), "--print-config")
                self.assertEqual(done.returncode, 0)
                self.assertIn("listen: ", done.stdout)

    def test_a_failed_start_ends_with_code_1_and_the_reason(self):
        done = self.run_program("troupe-coordinator", "--model", "/nonexistent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent", done.stderr)


if __name__ == "__main__":
    unittest.main()
