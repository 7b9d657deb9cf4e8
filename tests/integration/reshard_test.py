"""A replica of many ranks changes its layout while streams run: no request fails, no token is lost
or repeated, and a change that changes nothing is refused."""

import time
import unittest

import grpc
from harness import INFERENCE, ClusterTest, health, wait_until
from streams import Streams, reshard

STREAMS = 64
TOKENS = 192
# Grow, shrink, from heads split to experts spread, and back.
CHANGES = ["tp2 dp2 ep", "dp2 ep", "tp2"]


class ElasticTest(ClusterTest):
    def start_elastic(self, layout, count, *options):
        coordinator = self.start_coordinator("--layout", layout, "--elastic", "--max-batch-size",
                                             64, *options)
        workers = [self.add_rank(coordinator, f"w{i}") for i in range(count)]
        wait_until(lambda: health(coordinator.channel, INFERENCE) == "SERVING", "it serves")
        return coordinator, workers

    def add_rank(self, coordinator, name):
        return self.start_worker(coordinator, "--sharded", "--dtype", "f32", "--max-rows", 64,
                                 "--max-context", 2048, "--kv-memory-bytes", "320MiB", "--name",
                                 name)

    def layout(self, coordinator):
        """The layout that serves, as its sizes."""
        layout = self.status(coordinator).workers[0].map.layout
        return layout.tp, layout.dp, layout.pp, layout.expert_parallel


class Reshard(ElasticTest):
    def test_streams_go_on_through_changes_of_layout(self):
        coordinator, _ = self.start_elastic("tp2", 4)
        start = time.monotonic()
        expected = Streams(coordinator.channel, STREAMS, TOKENS).join()
        print(f"{STREAMS} streams of {TOKENS} tokens: {time.monotonic() - start:.1f} s")

        streams = Streams(coordinator.channel, STREAMS, TOKENS)
        for number, name in enumerate(CHANGES):
            wanted = (number + 1) * TOKENS // (len(CHANGES) + 2)
            wait_until(lambda: streams.least_tokens() >= wanted, "streams go on")
            since = time.monotonic()
            events = reshard(coordinator.channel, name)
            until = time.monotonic()
            self.assertEqual(streams.ended(), 0, "the change met no stream")
            outcome = events[-1].outcome
            moves = events[0].plan.ranks
            wait_until(lambda: streams.moved(until), "every stream moves again")
            print(f"{name}: prepared in "
                  f"{outcome.prepare_us / 1e6:.2f} s, switched in {outcome.switch_us / 1e6:.2f} s, "
                  f"longest stall {streams.longest_stall_s(since, until):.2f} s, "
                  f"{sum(m.disk_bytes + m.peer_bytes for m in moves) / 2**20:.1f} MiB loaded")
        self.assertEqual(streams.join(), expected)
        self.assertEqual(self.layout(coordinator), (2, 1, 1, False))
        self.assert_idle(coordinator)

    def test_a_change_that_changes_nothing_is_refused(self):
        coordinator, _ = self.start_elastic("tp2", 2)
        with self.assertRaises(grpc.RpcError) as raised:
            reshard(coordinator.channel, "tp2")
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("nothing would change", raised.exception.details())
        self.assertEqual(self.layout(coordinator), (2, 1, 1, False))


if __name__ == "__main__":
    unittest.main()
