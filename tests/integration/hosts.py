"""Hosts of a network that exists for one test alone, and its faults.

Every host is a network namespace, joined to a bridge by a pair of virtual interfaces; the test's
own process sits at the bridge. Packets are dropped by nftables in the host that they reach or
leave. Namespaces live as long as the processes in them, so nothing is left behind, and nothing of
the machine's own network is touched: `enter` first moves the test itself to a namespace.
"""

import asyncio
import contextlib
import ipaddress
import os
import shutil
import subprocess
import sys
import threading
import time

NETWORK = ipaddress.ip_network("10.77.0.0/24")
INSIDE = "TROUPE_TEST_NETWORK"  # in the environment: "1" once entered, else why that cannot be
SKIPPED = 77  # the exit code by which ctest knows

FAULTS = """
table inet faults {
  chain input { type filter hook input priority 0; policy accept; }
  chain output { type filter hook output priority 0; policy accept; }
}
"""


def _unshare():
    """How to get a network namespace here, and why there is no way (one of them None)."""
    tools = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "nsenter": "util-linux"}
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if missing:
        return None, f"not installed: {', '.join(sorted(set(missing)))}"
    errors = []
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command, None
        errors.append(tried.stderr.strip())
    return None, f"no network namespace can be made here: {'; '.join(errors)}"


def enter():
    """Starts this program anew in a network namespace; returns where that is done or impossible."""
    if INSIDE in os.environ:
        return
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    command, why_not = _unshare()
    os.environ[INSIDE] = why_not or "1"
    if command is not None:
        os.execvp(command[0], [*command, sys.executable, *sys.argv])


def why_not():
    """Why there can be no hosts; None where there can."""
    reason = os.environ.get(INSIDE, "hosts.enter was not called")
    return None if reason == "1" else reason


def _run(*command, text=None):
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Host:
    """One machine of the network; `prefix` in front of a command runs it there."""

    def __init__(self, number):
        self.address = str(NETWORK[number])
        # It waits for its input, which ends with this process.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL)
        self.prefix = ("nsenter", "--net", f"--target={self._holder.pid}")
        try:
            self._join(f"host{number}")
        except BaseException:
            self.stop()
            raise

    def _join(self, link):
        self._await_namespace()
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns",
             self._holder.pid)
        _run("ip", "link", "set", link, "master", "bridge0", "up")
        self.run("ip", "address", "add", f"{self.address}/{NETWORK.prefixlen}", "dev", "eth0")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", "eth0", "up")
        self.heal()

    def _await_namespace(self):
        """Until the holder has left our namespace."""
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == ours:
            if time.monotonic() > deadline or self._holder.poll() is not None:
                raise OSError("unshare --net made no namespace")
            time.sleep(0.01)

    def run(self, *command, text=None):
        _run(*self.prefix, *command, text=text)

    def _rules(self, *rules):
        self.run("nft", "-f", "-", text="\n".join(f"add rule inet faults {r}" for r in rules))

    def heal(self):
        """Ends all faults of this host."""
        self.run("nft", "-f", "-", text=f"flush ruleset\n{FAULTS}")

    def cut(self, *others):
        """Loses all packets from and to `others`, or from and to everybody."""
        if not others:
            self._rules('input iif "eth0" drop', 'output oif "eth0" drop')
        for other in others:
            self._rules(f"input ip saddr {other.address} drop",
                        f"output ip daddr {other.address} drop")

    def lose(self, percent):
        """Loses so many of the packets that reach it, by chance."""
        self._rules(f"input numgen random mod 100 < {percent} drop")

    def stop(self):
        self._holder.stdin.close()
        self._holder.wait()


class Network:
    """A bridge and hosts on it; one for this process's life.

    Raises OSError, saying why, where the kernel has no such things.
    """

    def __init__(self, count):
        self.hosts = []
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge0", "type", "bridge")
        try:
            _run("ip", "address", "add", f"{NETWORK[1]}/{NETWORK.prefixlen}", "dev", "bridge0")
            _run("ip", "link", "set", "bridge0", "up")
            for number in range(count):
                self.hosts.append(Host(number + 2))
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for host in self.hosts:
            host.stop()
        _run("ip", "link", "delete", "bridge0")


class DelayProxy:
    """Takes connections at the bridge, at the port of `address`, and passes every byte on to that
    host, `delay_s` later. For 0.03 s, what a netem rule of 30 ms does, which kernels may lack."""

    def __init__(self, address, delay_s):
        self._to = address.rsplit(":", 1)
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, str(NETWORK[1]), int(self._to[1])),
            self._loop).result()
        self.address = f"{NETWORK[1]}:{self._to[1]}"

    async def _serve(self, reader, writer):
        back_reader, back_writer = await asyncio.open_connection(*self._to)
        try:
            await asyncio.gather(self._pass(reader, back_writer), self._pass(back_reader, writer))
        finally:
            for end in (writer, back_writer):
                self._loop.call_later(self._delay_s, end.close)

    async def _pass(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self._loop.call_later(self._delay_s, writer.write, data)
        self._loop.call_later(self._delay_s, writer.close)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(2 * self._delay_s)  # until all are closed
