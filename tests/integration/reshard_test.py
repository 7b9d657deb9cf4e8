"""A replica of many ranks changes its layout while streams run: no request fails, no token is lost
or repeated, and a change that changes nothing is refused."""

import json
import shutil
import socket
import time
import unittest

import grpc
from elastic import ElasticTest
from harness import DEVICES, MODEL, wait_until
from streams import Streams, reshard

STREAMS = 64
TOKENS = 192
# Grow, shrink, from heads split to experts spread, and back.
CHANGES = ["tp2 dp2 ep", "dp2 ep", "tp2"]


def flip_a_bit(path):
    """Of layer 7's attention, in a copy that takes the file's place."""
    content = bytearray(path.read_bytes())
    header_end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_end])
    name = next(name for name in header if "layers.7.self_attn" in name)
    content[header_end + header[name]["data_offsets"][0]] ^= 1
    path.unlink()
    path.write_bytes(content)


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
            for move in moves:
                self.assertEqual(sum(read.bytes for read in move.reads), move.peer_bytes)
            moved = [len(times) for times in streams.times]
            wait_until(lambda: all(len(times) > count + 1 or reply is not None
                                   for times, count, reply
                                   in zip(streams.times, moved, streams.replies)),
                       "every stream moves again")
            print(f"{name}: prepared in "
                  f"{outcome.prepare_us / 1e6:.2f} s, switched in {outcome.switch_us / 1e6:.2f} s, "
                  f"longest stall {streams.longest_stall_s(since, until):.2f} s, "
                  f"{outcome.peer_bytes / 2**20:.1f} MiB read from peers, "
                  f"{outcome.disk_bytes / 2**20:.1f} MiB from disk, "
                  f"{self.replica(coordinator).tokens_kept} tokens kept")
        self.assertEqual(streams.join(), expected)
        self.assertEqual(self.layout(coordinator), (2, 1, 1, False))
        for rank in self.replica(coordinator).ranks:
            self.assertEqual(rank.node, socket.gethostname())
            self.assertIn(rank.device, DEVICES)
        self.assert_idle(coordinator)

    def test_weights_that_differ_roll_the_change_back(self):
        own = self.folder / "own"
        shutil.copytree(MODEL, own)
        coordinator, _ = self.start_elastic("dp2 ep", 2)
        self.add_rank(coordinator, "w2", "--load-from-peers=false", model=own)
        self.wait_spares(coordinator, 3)
        reshard(coordinator.channel, "dp3 ep")
        expected = Streams(coordinator.channel, 4, 16).join()
        reshard(coordinator.channel, "dp2 ep")
        # As a disk does: after the rank has proved what its folder is.
        flip_a_bit(own / "model-00002-of-00002.safetensors")
        for layout in ["dp3 ep", "pp3"]:  # beside a copy, and alone with its layers
            with self.subTest(layout=layout):
                with self.assertRaises(grpc.RpcError) as raised:
                    reshard(coordinator.channel, layout)
                print(raised.exception.details())
                self.assertEqual(raised.exception.code(), grpc.StatusCode.ABORTED)
                self.assertRegex(raised.exception.details(), "rolled back.*layer 7 attention.*w2")
                self.assertEqual(self.layout(coordinator), (1, 2, 1, True))
                self.assertEqual(Streams(coordinator.channel, 4, 16).join(), expected)

    def configs_alone(self):
        """A copy of the model's folder without its weights."""
        own = self.folder / "configs"
        shutil.copytree(MODEL, own, ignore=shutil.ignore_patterns("*.safetensors*"))
        return own

    def test_ranks_without_weights_read_them_from_peers(self):
        own = self.configs_alone()
        coordinator, _ = self.start_elastic("tp2", 2)
        expected = Streams(coordinator.channel, 8, 32).join()
        for name in ["w2", "w3"]:
            self.add_rank(coordinator, name, model=own)
        self.wait_spares(coordinator, 4)
        for layout in ["tp2 dp2 ep", "pp4"]:
            with self.subTest(layout=layout):
                streams = Streams(coordinator.channel, 8, 32)
                wait_until(lambda: streams.least_tokens() >= 2, "streams go on")
                events = reshard(coordinator.channel, layout)
                self.assertEqual(streams.join(), expected)
                for move in events[0].plan.ranks:
                    print(move.worker, move.keep_bytes, move.disk_bytes,
                          [(read.worker, read.bytes) for read in move.reads])
                    if move.worker in ["w2", "w3"]:
                        self.assertEqual(move.disk_bytes, 0)
                        self.assertLessEqual({read.worker for read in move.reads}, {"w0", "w1"})
                self.assertGreater(events[-1].outcome.peer_bytes, 0)
                self.assertEqual(Streams(coordinator.channel, 8, 32).join(), expected)

    def test_another_model_rolls_the_change_back(self):
        """Of the same weights, so that what the rank reads does not tell."""
        own = self.folder / "own"
        shutil.copytree(MODEL, own)
        tokenizer = own / "tokenizer_config.json"
        tokenizer.write_text(tokenizer.read_text() + "\n")
        coordinator, _ = self.start_elastic("dp2 ep", 2)
        self.add_rank(coordinator, "w2", model=own)
        self.wait_spares(coordinator, 3)
        with self.assertRaises(grpc.RpcError) as raised:
            reshard(coordinator.channel, "dp3 ep")
        print(raised.exception.details())
        self.assertEqual(raised.exception.code(), grpc.StatusCode.ABORTED)
        self.assertRegex(raised.exception.details(),
                         "rolled back.*rank w2 has prepared another model")
        self.assertEqual(self.layout(coordinator), (1, 2, 1, True))

    def test_experts_move_by_themselves(self):
        coordinator, _ = self.start_elastic("dp2 ep", 2, "--rebalance-above", 1.05,
                                            "--rebalance-interval-ms", 1000)
        said = Streams(coordinator.channel, 16, 192).join()
        wait_until(lambda: self.replica(coordinator).map.epoch > 1, "experts have moved")
        self.assertEqual(Streams(coordinator.channel, 16, 192).join(), said)
        print(f"epoch {self.replica(coordinator).map.epoch}, "
              f"balance {self.replica(coordinator).expert_balance.mean:.2f}")
        self.assertEqual(self.layout(coordinator), (1, 2, 1, True))

    def test_a_change_that_changes_nothing_is_refused(self):
        coordinator, _ = self.start_elastic("tp2", 2)
        with self.assertRaises(grpc.RpcError) as raised:
            reshard(coordinator.channel, "tp2")
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("nothing would change", raised.exception.details())
        self.assertEqual(self.layout(coordinator), (2, 1, 1, False))


if __name__ == "__main__":
    unittest.main()
