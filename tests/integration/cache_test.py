"""Blocks of KV are found again: in the worker's memory, and after a restart of everything in the
cache service's files. Damaged files never change an answer."""

import json
import unittest

from harness import (
    MODEL,
    ClusterTest,
    cache_pb2,
    cache_pb2_grpc,
    chat_request,
    generate,
    wait_until,
)

BLOCK_TOKENS = 64
# RocksDB refuses a file whose header is damaged; no value lies there.
HEADER_BYTES = 4096


def long_prompt():
    with open(MODEL / "eval/needle_1k.jsonl", encoding="utf-8") as file:
        return json.loads(next(file))


class CacheTest(ClusterTest):
    def setUp(self):
        super().setUp()
        self.case = long_prompt()
        self.start_all()

    def start_all(self):
        # Small, so that some values go to files of their own and others stay in the log.
        self.cache = self.start_cache("--write-buffer-bytes", "1MiB")
        self.coordinator = self.start_coordinator(cache=self.cache)
        self.worker = self.start_worker(self.coordinator, "--name", "w1", cache=self.cache)
        self.wait_workers(self.coordinator, 1)

    def stop_all(self):
        for program in (self.worker, self.coordinator, self.cache):
            self.assertEqual(program.terminate(), 0, program.log)

    def ask(self, tenant=None, **options):
        request = chat_request(self.case["messages"][-1]["content"], **options)
        return generate(self.coordinator.channel, request, tenant=tenant)

    def info(self):
        return cache_pb2_grpc.CacheStub(self.cache.channel).Info(cache_pb2.InfoRequest(),
                                                                 timeout=30)

    def wait_stored(self):
        """Stores run behind the answer: waits until their count is that of the worker's groups."""
        def all_stored():
            [worker] = self.status(self.coordinator).workers
            return worker.blocks_stored > 0 and self.info().stored >= worker.blocks_stored
        wait_until(all_stored, "finished blocks are in the cache service")

    def test_second_request_reuses_blocks_of_the_workers_memory(self):
        first = self.ask()
        self.assertEqual(first.answer.strip(), str(self.case["answer"]))
        self.assertEqual(first.usage.cached_tokens, 0)
        second = self.ask()
        self.assertEqual(second.text, first.text)
        blocks = second.usage.kv_blocks_reused_local
        self.assertGreaterEqual(blocks, first.usage.prompt_tokens // BLOCK_TOKENS - 1)
        self.assertEqual(second.usage.cached_tokens, blocks * BLOCK_TOKENS)
        self.assertEqual(second.usage.kv_blocks_reused_cache, 0)

    def test_restart_of_everything_still_hits_and_says_the_same(self):
        first = self.ask()
        self.wait_stored()
        self.stop_all()
        self.start_all()
        second = self.ask()
        self.assertEqual(second.text, first.text)
        self.assertEqual(second.tokens, first.tokens)
        self.assertGreater(second.usage.kv_blocks_reused_cache, 0)
        self.assertEqual(second.usage.kv_blocks_reused_local, 0)
        self.assertEqual(second.usage.cached_tokens,
                         second.usage.kv_blocks_reused_cache * BLOCK_TOKENS)

    def test_a_tenant_and_a_request_without_cache_find_nothing_of_others(self):
        first = self.ask(tenant="alice")
        self.wait_stored()
        for tenant, options in (("bob", {}), ("alice", {"use_cache": False})):
            with self.subTest(tenant=tenant, **options):
                reply = self.ask(tenant=tenant, **options)
                self.assertEqual(reply.text, first.text)
                self.assertEqual(reply.usage.cached_tokens, 0)

    def test_damaged_values_are_misses(self):
        self.check_damage("*.blob")

    def test_damaged_log_loses_values_alone(self):
        self.check_damage("*.log")

    def check_damage(self, pattern):
        """Damages the cache's files of a kind; the answer must be the one that was before."""
        first = self.ask()
        self.wait_stored()
        self.stop_all()
        self.damage(pattern)
        self.start_all()
        second = self.ask()
        self.assertEqual(second.text, first.text)
        self.assertLess(second.usage.cached_tokens,
                        first.usage.prompt_tokens // BLOCK_TOKENS * BLOCK_TOKENS)

    def damage(self, pattern):
        """Flips one byte in every 512 beyond the files' headers."""
        files = [path for path in (self.folder / "cache").rglob(pattern)
                 if path.stat().st_size > HEADER_BYTES]
        self.assertTrue(files, f"no {pattern} to damage")
        for path in files:
            data = bytearray(path.read_bytes())
            for offset in range(HEADER_BYTES, len(data), 512):
                data[offset] ^= 0xFF
            path.write_bytes(data)

    def test_service_goes_on_without_its_cache(self):
        first = self.ask()
        self.cache.kill()
        second = self.ask(tenant="someone-else")
        self.assertEqual(second.text, first.text)


if __name__ == "__main__":
    unittest.main()
