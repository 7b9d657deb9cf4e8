"""Ranks and coordinators of an elastic replica die by SIGKILL: under load, and at each phase that a
change of layout tells of. No stream is lost or repeats a token, and what serves afterwards is the
old layout, the new one, or what the ranks that are left form."""

import shutil
import time
import unittest

import grpc
from elastic import ElasticTest
from harness import MODEL, wait_until
from streams import Streams, reshard

# 64 streams and three ranks on the cores of one machine, which may be busy with others: the goal is
# 2 s where every rank has cores of its own.
MOVED_WITHIN_S = 5
PHASES = ["preparing", "deciding", "switching", "retiring"]


class Kills(ElasticTest):
    said = {}  # by number of tokens, what one stream of each prompt said; the same in all tests

    def expected(self, channel, count, tokens):
        """What every stream is to say: one of each prompt says it for all."""
        if tokens not in self.said:
            self.said[tokens] = Streams(channel, 8, tokens).join()
        return [self.said[tokens][i % 8] for i in range(count)]

    def test_a_killed_rank_costs_no_stream(self):
        coordinator, workers = self.start_elastic("dp4 ep", 4)
        expected = self.expected(coordinator.channel, 64, 96)
        streams = Streams(coordinator.channel, 64, 96)
        wait_until(lambda: streams.least_tokens() >= 16, "streams go on")
        killed_at = time.monotonic()
        workers[2].kill()
        wait_until(streams.moved, "every stream moves again")
        moved_s = max(streams.first_moved()) - killed_at
        print(f"every stream moved {moved_s:.2f} s after the kill, "
              f"longest stall {streams.longest_stall_s(killed_at, time.monotonic()):.2f} s, "
              f"{self.replica(coordinator).tokens_kept} tokens kept")
        self.assertEqual(streams.join(), expected)
        self.assertEqual(self.layout(coordinator), (1, 3, 1, True))
        self.assertLess(moved_s, MOVED_WITHIN_S)

    def change_and_kill(self, coordinator, phase, kill):
        """Changes tp2 to tp2 dp2 ep and kills at `phase`. The outcome, as the client sees it."""
        told = []

        def on_event(event):
            if event.progress.phase == phase and not told:
                told.append(phase)
                kill()

        try:
            reshard(coordinator.channel, "tp2 dp2 ep", on_event=on_event)
            outcome = "OK"
        except grpc.RpcError as error:
            outcome = error.code().name
        self.assertEqual(told, [phase])
        return outcome

    def test_a_rank_killed_in_a_change(self):
        for victim in ["w1", "w3"]:  # of both layouts, of the new one alone
            for phase in PHASES:
                with self.subTest(victim=victim, phase=phase):
                    coordinator, workers = self.start_elastic("tp2", 4)
                    expected = self.expected(coordinator.channel, 16, 64)
                    streams = Streams(coordinator.channel, 16, 64)
                    wait_until(lambda: streams.least_tokens() >= 8, "streams go on")
                    outcome = self.change_and_kill(coordinator, phase,
                                                   workers[int(victim[1:])].kill)
                    self.assertEqual(streams.join(), expected)
                    layout = self.serves_one_of(coordinator, (2, 1, 1, False), (2, 2, 1, True),
                                                (1, 3, 1, True), (1, 3, 1, False))
                    print(f"{victim} killed while {phase}: {outcome}, then {layout}")
                    self.stop_all()

    def test_a_peer_killed_while_ranks_without_weights_read(self):
        own = self.folder / "configs"
        shutil.copytree(MODEL, own, ignore=shutil.ignore_patterns("*.safetensors*"))
        coordinator, workers = self.start_elastic("tp2", 2)
        for name in ["w2", "w3"]:
            self.add_rank(coordinator, name, model=own)
        self.wait_spares(coordinator, 4)
        expected = self.expected(coordinator.channel, 16, 64)
        streams = Streams(coordinator.channel, 16, 64)
        wait_until(lambda: streams.least_tokens() >= 8, "streams go on")
        outcome = self.change_and_kill(coordinator, "preparing", workers[0].kill)
        self.assertEqual(streams.join(), expected)
        layout = self.serves_one_of(coordinator, (1, 3, 1, True), (1, 3, 1, False),
                                    (2, 1, 1, False), (1, 1, 1, False))
        print(f"w0 killed while ranks read from it: {outcome}, then {layout}")

    def test_a_coordinator_killed_in_a_change(self):
        for phase in PHASES:
            with self.subTest(phase=phase):
                coordinator, _ = self.start_elastic("tp2", 4)
                expected = self.expected(coordinator.channel, 8, 32)
                outcome = self.change_and_kill(coordinator, phase, coordinator.process.kill)
                coordinator.stop()
                coordinator = self.restart_coordinator(coordinator)
                layout = self.serves_one_of(coordinator, (2, 1, 1, False), (2, 2, 1, True))
                self.assertEqual(Streams(coordinator.channel, 8, 32).join(), expected)
                print(f"coordinator killed while {phase}: {outcome}, then {layout}")
                self.stop_all()


if __name__ == "__main__":
    unittest.main()
