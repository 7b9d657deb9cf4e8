"""Starts Troupe's programs for a test and always stops them.

Programs are found in the environment (TROUPE_CACHE, TROUPE_COORDINATOR, TROUPE_WORKER,
TROUPE_CLI), which CMake sets; workers take TROUPE_TEST_DEVICES ("cpu", "cuda:0,cuda:1") in turn.
Each listens on a port that the system chose and that its log names. A program is ready when its
gRPC health service says so. Nothing here sleeps a fixed time: what has to become true is asked for
again and again until `timeout` seconds are over. What programs logged is kept in the folder
TROUPE_TEST_LOGS, where that is set.
"""

import atexit
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/abacus"
INFERENCE = "troupe.v1.Inference"
# Generous: the machine that runs the tests may be busy with others.
START_TIMEOUT_S = 120
DEVICES = os.environ.get("TROUPE_TEST_DEVICES", "cpu").split(",")
REQUEST_TIMEOUT_S = 240


def _generate_stubs():
    """Makes modules of proto/ in a temporary folder that this process can import."""
    from grpc_tools import protoc

    folder = tempfile.mkdtemp(prefix="troupe-stubs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files = sorted(str(path) for path in (ROOT / "proto").glob("troupe/v1/*.proto"))
    code = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}",
                        f"--grpc_python_out={folder}", *files])
    if code != 0:
        raise RuntimeError(f"protoc ended with {code}")
    sys.path.insert(0, folder)
    return folder


STUBS = _generate_stubs()

from troupe.v1 import (admin_pb2, admin_pb2_grpc, cache_pb2, cache_pb2_grpc,  # noqa: E402
                       inference_pb2, inference_pb2_grpc)


def program_path(name):
    """Where CMake put `troupe-cache` and the like."""
    variable = {"troupe": "TROUPE_CLI"}.get(name, name.upper().replace("-", "_"))
    path = os.environ.get(variable)
    if not path:
        raise RuntimeError(f"{variable} is not set; it must name the program {name}")
    return path


def wait_until(condition, what, timeout=START_TIMEOUT_S):
    """Returns the first true value of `condition()`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.02)


def dial(address):
    size = 64 << 20
    return grpc.insecure_channel(address, [("grpc.max_send_message_length", size),
                                           ("grpc.max_receive_message_length", size),
                                           ("grpc.use_local_subchannel_pool", 1)])


def health(channel, service=""):
    """SERVING, NOT_SERVING, ... as a name, or None while nobody answers."""
    try:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=5)
    except grpc.RpcError:
        return None
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def any_port(host):
    return f"{'127.0.0.1' if host is None else host.address}:0"


class Program:
    """One running program; `log` is what it wrote to stderr so far.

    `host`: where it runs (hosts.Host); None: here, at 127.0.0.1.
    """

    def __init__(self, name, arguments, folder, host=None, environment=None):
        descriptor, path = tempfile.mkstemp(prefix=name + "-", suffix=".log", dir=folder)
        self.name = name
        self._log_path = pathlib.Path(path)
        self._host = "127.0.0.1" if host is None else host.address
        command = [*(() if host is None else host.prefix), program_path(name),
                   *map(str, arguments)]
        with os.fdopen(descriptor, "wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            env={**os.environ, **(environment or {})})
        self.address = None
        self.channel = None

    @property
    def log(self):
        return self._log_path.read_text(errors="replace")

    def wait_ready(self):
        port = wait_until(self._find_port, f"port of {self.name}")
        self.address = f"{self._host}:{port}"
        self.channel = dial(self.address)
        wait_until(lambda: self._is_alive() and health(self.channel) == "SERVING",
                   f"{self.name} is healthy")
        return self

    def _is_alive(self):
        if self.process.poll() is not None:
            raise AssertionError(
                f"{self.name} ended with {self.process.returncode}:\n{self.log}")
        return True

    def _find_port(self):
        self._is_alive()
        found = re.search(r" serving .*?(?:port=|address=[^ ]*:)(\d+)", self.log)
        return found and found[1]

    def kill(self):
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()
        self._close_channel()

    def terminate(self, timeout=60):
        """Asks it to end; returns the exit code."""
        self._close_channel()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def _close_channel(self):
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        self._close_channel()
        if "TROUPE_TEST_LOGS" in os.environ:
            shutil.copy(self._log_path, os.environ["TROUPE_TEST_LOGS"])


class Reply:
    """All that one Generate call sent, and checks that hold for every stream."""

    def __init__(self, events):
        self.events = events
        self.started = None
        self.finished = None
        self.steps = []
        self.tokens = []
        self.logprobs = []
        self.epochs = []
        self.text = ""
        for event in events:
            self._take(event)

    def _take(self, event):
        kind = event.WhichOneof("event")
        if kind == "started":
            if self.started is not None:
                raise AssertionError("two Started in one stream")
            self.started = event.started
        elif kind == "tokens":
            if event.tokens.index != len(self.tokens):
                raise AssertionError(f"a token was lost or repeated: found index "
                                     f"{event.tokens.index}, wanted {len(self.tokens)}")
            if self.epochs and event.tokens.epoch < self.epochs[-1]:
                raise AssertionError("an epoch went backwards")
            self.tokens += event.tokens.ids
            self.logprobs += event.tokens.logprobs
            self.text += event.tokens.text
            if not self.epochs or event.tokens.epoch != self.epochs[-1]:
                self.epochs.append(event.tokens.epoch)
        elif kind == "step":
            self.steps.append(event.step)
        elif kind == "finished":
            self.finished = event.finished

    @property
    def usage(self):
        return self.finished.usage

    @property
    def answer(self):
        return self.finished.answer


def chat_request(question, **options):
    return inference_pb2.GenerateRequest(
        chat=inference_pb2.ChatMessages(messages=[{"role": "user", "content": question}]),
        options=inference_pb2.GenerateOptions(**options))


def generate(channel, request, on_event=None, timeout=REQUEST_TIMEOUT_S, tenant=None):
    """Runs one request to its end; raises grpc.RpcError where it fails."""
    metadata = [("troupe-tenant", tenant)] if tenant is not None else None
    call = inference_pb2_grpc.InferenceStub(channel).Generate(request, timeout=timeout,
                                                              metadata=metadata)
    events = []
    for event in call:
        events.append(event)
        if on_event is not None:
            on_event(event)
    return Reply(events)


def generate_all(channel, requests, on_event=None):
    """Runs all requests at once; their replies in order. Raises the first error."""
    results = [None] * len(requests)

    def run(position):
        try:
            results[position] = generate(channel, requests[position], on_event)
        except Exception as error:  # handed to the caller below
            results[position] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


class ClusterTest(unittest.TestCase):
    """A test with a temporary folder whose programs end with it, whatever happens."""

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = pathlib.Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="troupe-test-")))
        self.programs = []
        self.workers_started = 0

    def start(self, name, *arguments, host=None, environment=None):
        program = Program(name, arguments, self.folder, host, environment)
        self.stack.callback(program.stop)
        self.programs.append(program)
        return program.wait_ready()

    def start_cache(self, *arguments):
        return self.start("troupe-cache", "--listen", "127.0.0.1:0", "--data-dir",
                          self.folder / "cache", *arguments)

    def start_coordinator(self, *arguments, cache=None, host=None):
        if cache is not None:
            arguments = ("--cache", cache.address, *arguments)
        listen = () if "--listen" in arguments else ("--listen", any_port(host))
        return self.start("troupe-coordinator", "--model", MODEL, *listen, "--data-dir",
                          self.folder / "coordinator", *arguments, host=host)

    def start_worker(self, coordinator, *arguments, cache=None, host=None, model=MODEL):
        if cache is not None:
            arguments = ("--cache", cache.address, *arguments)
        listen = () if "--listen" in arguments else ("--listen", any_port(host))
        turn, place = divmod(self.workers_started, len(DEVICES))
        self.workers_started += 1
        # NCCL refuses two ranks on one GPU, unless they seem to be on two machines.
        environment = {"NCCL_HOSTID": f"turn-{turn}", "NCCL_SOCKET_IFNAME": "lo"}
        return self.start("troupe-worker", "--model", model, *listen, "--coordinator",
                          coordinator.address, "--device", DEVICES[place], "--threads", 1,
                          "--kv-memory-bytes", "512MiB", *arguments, host=host,
                          environment=environment)

    def wait_workers(self, coordinator, count):
        """Waits until so many workers are ready."""
        def ready():
            states = [worker.state for worker in self.status(coordinator).workers]
            return states.count(admin_pb2.WorkerStatus.STATE_READY) == count
        wait_until(ready, f"{count} workers are ready")
        self.assertEqual(health(coordinator.channel, INFERENCE), "SERVING")

    def status(self, coordinator):
        return admin_pb2_grpc.AdminStub(coordinator.channel).GetStatus(
            admin_pb2.GetStatusRequest(), timeout=30)

    def assert_idle(self, coordinator):
        """Every page and slot comes back soon after the last request has ended."""
        def idle():
            workers = self.status(coordinator).workers
            return all(w.running == 0 and w.waiting == 0 and
                       all(group.pages_used == 0 for group in w.groups) for w in workers)
        wait_until(idle, "no request holds memory", timeout=30)

    def assert_fails(self, code, details, request, channel, **arguments):
        """The call must fail with `code` and a message that matches `details`."""
        with self.assertRaises(grpc.RpcError) as raised:
            generate(channel, request, **arguments)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        self.assertRegex(raised.exception.details(), details)
