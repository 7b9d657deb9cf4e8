"""Replicas of several ranks: their streams are those of one worker, a rank that dies or hangs is
named, and no stream is lost with it."""

import signal
import threading
import unittest

from harness import INFERENCE, ClusterTest, chat_request, generate_all, health, wait_until

QUESTIONS = ["What is Fibonacci number 17?", "What is 2857 * 7306?", "12 + 34 * 5 =",
             "What is 999 * 888?"]


def requests():
    return [chat_request(question, sampling={"temperature": 0.0}, max_tokens=64, ignore_eos=True)
            for question in QUESTIONS]


class Ranks(ClusterTest):
    def start_ranks(self, layout, count, *options):
        coordinator = self.start_coordinator("--layout", layout, *options)
        workers = [self.add_rank(coordinator, f"w{i}") for i in range(count)]
        self.wait_workers(coordinator, 1)
        return coordinator, workers

    def add_rank(self, coordinator, name):
        return self.start_worker(coordinator, "--sharded", "--dtype", "f32", "--max-rows", 8,
                                 "--name", name)

    def whole_model_tokens(self):
        coordinator = self.start_coordinator()
        worker = self.start_worker(coordinator, "--dtype", "f32", "--max-rows", 8)
        self.wait_workers(coordinator, 1)
        tokens = [reply.tokens for reply in generate_all(coordinator.channel, requests())]
        worker.terminate()
        coordinator.terminate()
        return tokens

    def test_every_layout_gives_the_same_tokens(self):
        expected = self.whole_model_tokens()
        for layout, count in [("tp2", 2), ("dp2 ep", 2), ("pp2", 2), ("tp2 dp2 ep", 4)]:
            with self.subTest(layout=layout):
                coordinator, workers = self.start_ranks(layout, count)
                replies = generate_all(coordinator.channel, requests())
                self.assertEqual([reply.tokens for reply in replies], expected)
                for worker in workers:
                    worker.terminate()
                coordinator.terminate()

    def problems(self, coordinator):
        return " ".join(worker.problem for worker in self.status(coordinator).workers)

    def test_a_killed_rank_costs_no_stream(self):
        coordinator, workers = self.start_ranks("tp2", 2)
        expected = [reply.tokens for reply in generate_all(coordinator.channel, requests())]
        started = threading.Event()
        replies = []

        def run():
            replies.extend(generate_all(
                coordinator.channel, requests(),
                lambda event: started.set() if event.WhichOneof("event") == "tokens" else None))

        thread = threading.Thread(target=run)
        thread.start()
        self.assertTrue(started.wait(60))
        workers[1].kill()
        wait_until(lambda: "rank 1" in self.problems(coordinator),
                   "the dead rank is named")
        self.assertEqual(health(coordinator.channel, INFERENCE), "NOT_SERVING")
        self.add_rank(coordinator, "w1")
        thread.join(120)
        self.assertEqual([reply.tokens for reply in replies], expected)

    def test_a_rank_that_hangs_is_named_and_the_replica_is_not_ready(self):
        coordinator, workers = self.start_ranks("tp2", 2, "--rank-timeout-ms", 400)
        workers[1].process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "rank 1" in self.problems(coordinator),
                   "the rank that hangs is named")
        self.assertEqual(health(coordinator.channel, INFERENCE), "NOT_SERVING")
        workers[1].process.send_signal(signal.SIGCONT)
        self.wait_workers(coordinator, 1)


if __name__ == "__main__":
    unittest.main()
