"""Each rank on a host of its own, in network namespaces, and what a network does to them: a rank
or the coordinator is cut off, packets get lost, calls take long. No stream is lost or says
anything else than without.

Skipped, saying why, where namespaces, virtual interfaces or nftables are not to be had.
"""

import sys
import time
import unittest

import hosts

if __name__ == "__main__":
    hosts.enter()  # before there are threads

import grpc  # noqa: E402
from elastic import ElasticTest  # noqa: E402
from harness import wait_until  # noqa: E402
from streams import Streams, reshard  # noqa: E402

RANKS = 3
TOKENS = 32
# Faults are noticed in these times, far above a step's even where the machine is busy.
COLLECTIVE_TIMEOUT_MS = 3000
RANK_LOST_MS = 6000
DELAY_S = 0.03  # each way, between coordinator and ranks
OPTIONS = ("--rank-timeout-ms", 2000, "--rank-lost-ms", RANK_LOST_MS)


class Networks(ElasticTest):
    said = {}  # by number of tokens, what one stream of each prompt says

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if hosts.why_not():
            raise unittest.SkipTest(hosts.why_not())
        try:
            cls.network = hosts.Network(RANKS + 1)
        except OSError as error:
            raise unittest.SkipTest(f"no network of namespaces here: {error}") from error
        cls.addClassCleanup(cls.network.stop)

    def setUp(self):
        super().setUp()
        for host in self.network.hosts:
            host.heal()

    def host_of(self, number):
        """Of rank w<number>."""
        return self.network.hosts[number + 1]

    def start_cluster(self, layout, more_options=lambda i: ()):
        return self.start_elastic(
            layout, RANKS, *OPTIONS, hosts=self.network.hosts,
            rank_options=lambda i: ("--collective-timeout-ms", COLLECTIVE_TIMEOUT_MS,
                                    *more_options(i)))

    def expected(self, coordinator, count):
        if TOKENS not in self.said:
            self.said[TOKENS] = Streams(coordinator.channel, 8, TOKENS).join()
        return [self.said[TOKENS][i % 8] for i in range(count)]

    def test_a_rank_that_is_cut_off_is_named_and_streams_go_on(self):
        coordinator, _ = self.start_cluster("dp3 ep")
        expected = self.expected(coordinator, 16)
        streams = Streams(coordinator.channel, 16, TOKENS)
        wait_until(lambda: streams.least_tokens() >= 8, "streams go on")
        cut_at = time.monotonic()
        self.host_of(1).cut()
        wait_until(lambda: "rank 1" in coordinator.log, "the rank that is cut off is named")
        named_s = time.monotonic() - cut_at
        wait_until(streams.moved, "every stream moves again")
        moved_s = time.monotonic() - cut_at
        print(f"named after {named_s:.1f} s, every stream moved after {moved_s:.1f} s")
        self.assertLess(named_s, 1.25 * RANK_LOST_MS / 1000 + 2)
        self.assertEqual(streams.join(), expected)
        self.assertEqual(self.layout(coordinator), (1, 2, 1, True))

    def test_the_coordinator_cut_from_a_rank_in_a_change(self):
        coordinator, _ = self.start_cluster("dp2 ep")
        expected = self.expected(coordinator, 8)
        head = self.network.hosts[0]
        for phase, name, changed, rank in [("preparing", "dp3 ep", (1, 3, 1, True), 2),
                                           ("switching", "tp2", (2, 1, 1, False), 1)]:
            with self.subTest(phase=phase):
                before = self.layout(coordinator)
                streams = Streams(coordinator.channel, 8, TOKENS)
                wait_until(lambda: streams.least_tokens() >= 4, "streams go on")
                outcome = self.change_and_cut(coordinator, phase, name,
                                              lambda: head.cut(self.host_of(rank)))
                layout = self.serves_one_of(coordinator, before, changed)
                self.assertEqual(streams.join(), expected)
                print(f"cut while {phase}: {outcome}, then {layout}")
                head.heal()

    def change_and_cut(self, coordinator, phase, name, cut):
        """Changes to the layout `name` and cuts at `phase`. The outcome, as the client sees it."""
        told = []

        def on_event(event):
            if event.progress.phase == phase and not told:
                told.append(phase)
                cut()

        try:
            reshard(coordinator.channel, name, on_event=on_event)
            outcome = "OK"
        except grpc.RpcError as error:
            outcome = f"{error.code().name}, {error.details()}"
        self.assertEqual(told, [phase])
        return outcome

    def test_lost_packets_change_no_token(self):
        coordinator, _ = self.start_cluster("dp3 ep")
        expected = self.expected(coordinator, 8)
        for host in self.network.hosts:
            host.lose(percent=3)
        start = time.monotonic()
        self.assertEqual(Streams(coordinator.channel, 8, TOKENS).join(), expected)
        print(f"8 streams of {TOKENS} tokens with 3 % of packets lost: "
              f"{time.monotonic() - start:.1f} s")

    def test_slow_calls_change_no_token(self):
        def behind_a_proxy(number):
            address = f"{self.host_of(number).address}:{7101 + number}"
            proxy = hosts.DelayProxy(address, DELAY_S)
            self.stack.callback(proxy.stop)
            return ("--listen", address, "--advertise", proxy.address, "--ranks-host",
                    self.host_of(number).address)

        coordinator, _ = self.start_cluster("dp2 ep", behind_a_proxy)
        expected = self.expected(coordinator, 8)
        streams = Streams(coordinator.channel, 8, TOKENS)
        wait_until(lambda: streams.least_tokens() >= 4, "streams go on")
        start = time.monotonic()
        reshard(coordinator.channel, "dp3 ep")
        print(f"a change of layout with every call {DELAY_S} s late: "
              f"{time.monotonic() - start:.1f} s")
        self.assertEqual(streams.join(), expected)
        self.assertEqual(self.layout(coordinator), (1, 3, 1, True))


if __name__ == "__main__":
    program = unittest.main(exit=False)
    if program.result.wasSuccessful() and program.result.skipped:
        sys.exit(hosts.SKIPPED)
    sys.exit(not program.result.wasSuccessful())
