"""Sends prompts to a server over gRPC, several at a time."""

import asyncio
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import grpc
from grpc_tools import protoc

from evaluation.prompts import Prompt
from evaluation.report import Reply

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """What every request asks for."""

    max_tokens: int = 450
    # "off", "adaptive", a threshold, or None for the server's own.
    gate: str | float | None = None
    use_cache: bool = True


@dataclass(frozen=True)
class Stubs:
    """The modules that protoc makes of inference.proto."""

    messages: ModuleType
    services: ModuleType


def parse_gate(text: str) -> str | float:
    """`off`, `adaptive` or a threshold in [0, 1]; ValueError otherwise."""
    if text in ("off", "adaptive"):
        return text
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise ValueError(f"gate is {text!r}; wanted off, adaptive or a number from 0 to 1")
    return threshold


def load_stubs() -> Stubs:
    """Makes the stubs from proto/ in a temporary folder and imports them."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(p) for p in sorted((ROOT / "proto").glob("troupe/v1/*.proto"))]
        out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
        if protoc.main(["protoc", f"-I{ROOT / 'proto'}", *out, *files]) != 0:
            raise RuntimeError(f"protoc cannot read the files in {ROOT / 'proto'}")
        sys.path.insert(0, folder)
        try:
            return Stubs(
                importlib.import_module("troupe.v1.inference_pb2"),
                importlib.import_module("troupe.v1.inference_pb2_grpc"),
            )
        finally:
            sys.path.remove(folder)


def make_request(stubs: Stubs, prompt: Prompt, settings: Settings):
    """The GenerateRequest: greedy, the prompt as chat messages."""
    pb = stubs.messages
    gate = pb.AttentionGate()
    if settings.gate == "off":
        gate.mode = pb.AttentionGate.MODE_OFF
    elif settings.gate == "adaptive":
        gate.mode = pb.AttentionGate.MODE_ADAPTIVE
    elif settings.gate is not None:
        gate.mode = pb.AttentionGate.MODE_THRESHOLD
        gate.threshold = settings.gate
    messages = [pb.ChatMessage(role=role, content=content) for role, content in prompt.messages]
    options = pb.GenerateOptions(
        max_tokens=settings.max_tokens,
        sampling=pb.Sampling(temperature=0.0),
        use_cache=settings.use_cache,
        attention_gate=gate,
    )
    chat = pb.ChatMessages(messages=messages)
    return pb.GenerateRequest(chat=chat, options=options, request_id=prompt.id)


async def _ask(stub, stubs: Stubs, prompt: Prompt, settings: Settings, timeout_s: float) -> Reply:
    parts: list[str] = []
    usage = None
    try:
        call = stub.Generate(make_request(stubs, prompt, settings), timeout=timeout_s)
        async for event in call:
            kind = event.WhichOneof("event")
            if kind == "tokens":
                parts.append(event.tokens.text)
            elif kind == "finished":
                usage = event.finished.usage
    except grpc.aio.AioRpcError as error:
        return Reply(error=f"{error.code().name}: {error.details()}")
    if usage is None:
        return Reply(error="the stream ended without Finished")
    return Reply(
        text="".join(parts),
        output_tokens=usage.output_tokens,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        heads_total=usage.heads_total,
        heads_skipped=usage.heads_skipped,
    )


async def _ask_all(
    target: str,
    prompts: list[Prompt],
    settings: Settings,
    concurrency: int,
    timeout_s: float,
    progress: Callable[[int], None],
) -> tuple[list[Reply], float]:
    stubs = load_stubs()
    free = asyncio.Semaphore(concurrency)
    done = 0

    async with grpc.aio.insecure_channel(target) as channel:
        stub = stubs.services.InferenceStub(channel)

        async def ask(prompt: Prompt) -> Reply:
            nonlocal done
            async with free:
                reply = await _ask(stub, stubs, prompt, settings, timeout_s)
            done += 1
            progress(done)
            return reply

        start = time.monotonic()
        replies = await asyncio.gather(*(ask(p) for p in prompts))
        return list(replies), time.monotonic() - start


def ask_all(
    target: str,
    prompts: list[Prompt],
    settings: Settings,
    concurrency: int = 16,
    timeout_s: float = 600.0,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[Reply], float]:
    """Replies in the order of `prompts`, and the seconds from the first call to the last reply.

    At most `concurrency` calls are open; each may take `timeout_s`, its wait in the server's queue
    included. `progress` is told how many are done.
    """
    return asyncio.run(_ask_all(target, prompts, settings, concurrency, timeout_s, progress))
