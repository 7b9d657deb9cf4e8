"""Replicas whose layout changes, for tests and measurements."""

from harness import INFERENCE, ClusterTest, health, wait_until
from troupe.v1 import admin_pb2


class ElasticTest(ClusterTest):
    def start_elastic(self, layout, count, *options, hosts=None,
                      rank_options=lambda i: ()):
        """A coordinator and `count` ranks, of which those without a place are spares.

        `hosts`: where they run, the coordinator's first; None: all here. `rank_options`: of rank i.
        """
        self.options = ("--layout", layout, "--elastic", "--max-batch-size", 64, *options)
        hosts = hosts or [None] * (count + 1)
        coordinator = self.start_coordinator(*self.options, host=hosts[0])
        workers = [self.add_rank(coordinator, f"w{i}", *rank_options(i), host=hosts[i + 1])
                   for i in range(count)]
        self.wait_spares(coordinator, count)
        wait_until(lambda: health(coordinator.channel, INFERENCE) == "SERVING", "it serves")
        return coordinator, workers

    def wait_spares(self, coordinator, count):
        """Until all ranks, those without a place too, are in the status."""
        def names():
            workers = self.status(coordinator).workers
            return {rank.worker for worker in workers for rank in worker.ranks} | {
                worker.worker for worker in workers if not worker.ranks}
        wait_until(lambda: len(names()) == count, f"{count} ranks are there")

    def restart_coordinator(self, coordinator):
        """As after a crash: the same address, the same data folder."""
        return self.start_coordinator(*self.options, "--listen", coordinator.address)

    def add_rank(self, coordinator, name, *options, **place):
        return self.start_worker(coordinator, "--sharded", "--dtype", "f32", "--max-rows", 64,
                                 "--max-context", 2048, "--kv-memory-bytes", "320MiB", "--name",
                                 name, *options, **place)

    def stop_all(self):
        """Ends every program, and forgets what the coordinator knew."""
        for program in self.programs:
            program.stop()
        self.programs.clear()
        for path in (self.folder / "coordinator").glob("reshard.log*"):
            path.unlink()

    def replica(self, coordinator):
        """The status of the replica; an empty one while there is none."""
        return next((worker for worker in self.status(coordinator).workers if worker.ranks),
                    admin_pb2.WorkerStatus())

    def serves_one_of(self, coordinator, *layouts):
        """Waits until one of these layouts serves; which."""
        def serves():
            return (health(coordinator.channel, INFERENCE) == "SERVING" and
                    self.layout(coordinator) in layouts)
        wait_until(serves, f"one of {layouts}")
        return self.layout(coordinator)

    def layout(self, coordinator):
        """The layout that serves, as its sizes."""
        layout = self.replica(coordinator).map.layout
        return layout.tp, layout.dp, layout.pp, layout.expert_parallel
