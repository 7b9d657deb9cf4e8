"""A `troupe serve` of our own, for the time of an evaluation."""

import contextlib
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LISTENING = re.compile(r"^listening on (\S+)$")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


class StartError(Exception):
    """The server did not come up."""


def serve_command(troupe: Path, model: Path, dtype: str, quantize: str) -> list[str]:
    """The command line of the server; port 0 lets the system choose one."""
    return [
        str(troupe),
        "serve",
        "--model",
        str(model),
        "--listen",
        "127.0.0.1:0",
        "--dtype",
        dtype,
        "--quantize",
        quantize,
    ]


def _read_lines(process: subprocess.Popen, lines: "queue.Queue[str | None]") -> None:
    """Reads to the end, so that the server never waits for its output to be taken."""
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _wait_for_target(lines: "queue.Queue[str | None]", command: list[str]) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    seen: list[str] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            line = None
        if line is None:
            output = "\n".join(seen[-10:])
            wanted = f"wanted a line 'listening on HOST:PORT' within {START_TIMEOUT_S:.0f} s"
            raise StartError(f"{' '.join(command)}: {wanted}; its output ends:\n{output}")
        if match := LISTENING.match(line):
            return match[1]
        seen.append(line)


@contextlib.contextmanager
def running_server(command: list[str]) -> Iterator[str]:
    """Starts `command`, yields the HOST:PORT it prints, and ends it afterwards.

    Its data (the cache) lives in a temporary folder: one evaluation does not warm the next.
    """
    with tempfile.TemporaryDirectory(prefix="troupe-eval-") as data:
        environment = os.environ | {"XDG_DATA_HOME": data}
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        except OSError as error:
            why = f"{command[0]}: {error.strerror}; build it, or give --target"
            raise StartError(why) from error
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        try:
            yield _wait_for_target(lines, command)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join()
            process.stdout.close()
