"""See bench/reshard."""

import argparse
import json
import os
import sys
import time

from elastic import ElasticTest
from harness import wait_until
from streams import Streams, reshard

# From tp2, one after another.
CHANGES = ["tp2 dp2 ep", "dp2 ep", "tp2", "dp4 ep"]
# A layout, and which of its four ranks dies.
KILLS = [("tp2 dp2 ep", 0), ("tp2 dp2 ep", 3), ("dp4 ep", 0), ("dp4 ep", 2), ("tp2 pp2", 1)]


class Figures(ElasticTest):
    """A test that checks nothing but tokens, for its programs' sake."""

    def __init__(self, arguments):
        super().__init__()
        self.arguments = arguments

    def runTest(self):
        table = {"cores": os.cpu_count(), "load": os.getloadavg()[0],
                 "streams": self.arguments.streams, "tokens": self.arguments.tokens}
        coordinator, _ = self.start_elastic("tp2", 4)
        start = time.monotonic()
        self.expected = self.streams(coordinator).join()
        table["seconds_without_a_change"] = round(time.monotonic() - start, 2)
        self.stop_all()
        table["changes"] = [self.change(name) for name in CHANGES]
        table["kills"] = [self.kill(layout, rank) for layout, rank in KILLS]
        json.dump(table, sys.stdout, indent=1)
        print()

    def streams(self, coordinator):
        return Streams(coordinator.channel, self.arguments.streams, self.arguments.tokens)

    def under_load(self, coordinator):
        streams = self.streams(coordinator)
        wait_until(lambda: streams.least_tokens() >= self.arguments.tokens // 4, "streams go on")
        return streams

    def ended(self, streams):
        """Whether all went well, as part of a row. A stream that failed ends the program."""
        replies = streams.join()
        lost = sum(found != wanted for found, wanted in zip(replies, self.expected))
        self.stop_all()
        return {"streams_with_other_tokens": lost}

    def change(self, name):
        before = CHANGES[CHANGES.index(name) - 1] if name != CHANGES[0] else "tp2"
        coordinator, _ = self.start_elastic(before, 4)
        streams = self.under_load(coordinator)
        since = time.monotonic()
        events = reshard(coordinator.channel, name)
        wait_until(streams.moved, "every stream moves again")
        outcome = events[-1].outcome
        row = {"from": before, "to": name, "prepare_s": outcome.prepare_us / 1e6,
               "switch_s": outcome.switch_us / 1e6,
               "longest_stall_s": round(streams.longest_stall_s(since, time.monotonic()), 2),
               "new_weights_mib": round(sum(m.disk_bytes + m.peer_bytes
                                            for m in events[0].plan.ranks) / 2**20, 1),
               "tokens_kept": self.replica(coordinator).tokens_kept}
        return row | self.ended(streams)

    def kill(self, layout, rank):
        coordinator, workers = self.start_elastic(layout, 4)
        victim = self.replica(coordinator).ranks[rank].worker
        streams = self.under_load(coordinator)
        since = time.monotonic()
        workers[int(victim[1:])].kill()
        wait_until(streams.moved, "every stream moves again")
        first = sorted(at - since for at in streams.first_moved())
        replica = self.replica(coordinator)
        sizes = replica.map.layout
        row = {"layout": layout, "rank": rank,
               "then": f"tp{sizes.tp} dp{sizes.dp} pp{sizes.pp}" +
                       (" ep" if sizes.expert_parallel else ""),
               "first_stream_moves_s": round(first[0], 2) if first else None,
               "every_stream_moves_s": round(first[-1], 2) if first else None,
               "tokens_kept": replica.tokens_kept}
        return row | self.ended(streams)


def main():
    parser = argparse.ArgumentParser(prog="bench/reshard", description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96, help="of each stream")
    figures = Figures(parser.parse_args())
    figures.setUp()
    try:
        figures.runTest()
    finally:
        figures.doCleanups()


if __name__ == "__main__":
    main()
