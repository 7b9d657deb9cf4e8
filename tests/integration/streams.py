"""Many streams at once, with the time of every token: what a client sees of a pause."""

import threading
import time

from harness import chat_request, generate
from troupe.v1 import admin_pb2, admin_pb2_grpc

# Of different lengths, so that streams are never at the same place.
QUESTIONS = ["What is Fibonacci number 17?", "What is 2857 * 7306?", "12 + 34 * 5 =",
             "What is 999 * 888?", "What is 71 * 93 - 4?", "7 * 8 * 9 =", "What is 4096 / 64?",
             "What is 1234 + 8765?"]


def request_of(position, tokens):
    """A greedy request; every eighth has the same prompt."""
    question = QUESTIONS[position % len(QUESTIONS)]
    return chat_request(question, sampling={"temperature": 0.0}, max_tokens=tokens,
                        ignore_eos=True)


class Streams:
    """`count` streams of `tokens` tokens each, read by a thread each from the constructor on."""

    def __init__(self, channel, count, tokens):
        self.replies = [None] * count
        self.times = [[] for _ in range(count)]  # of every token, seconds of time.monotonic
        self.epochs = [[] for _ in range(count)]  # of every token: which replica's session it was
        self._tokens = tokens
        self._threads = [threading.Thread(target=self._run, args=(channel, i), daemon=True)
                         for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, channel, position):
        def on_event(event):
            if event.WhichOneof("event") == "tokens":
                self.epochs[position].append(event.tokens.epoch)
                self.times[position].append(time.monotonic())

        try:
            self.replies[position] = generate(channel, request_of(position, self._tokens), on_event)
        except Exception as error:  # handed out by join()
            self.replies[position] = error

    def least_tokens(self):
        """What the stream that is behind all others has received."""
        return min(len(times) for times in self.times)

    def ended(self):
        return sum(reply is not None for reply in self.replies)

    def join(self):
        """The streams' tokens, in order. Raises the first error of a stream."""
        for thread in self._threads:
            thread.join()
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
        return [reply.tokens for reply in self.replies]

    def longest_stall_s(self, since, until):
        """The longest time between two tokens of a stream of which a part lies in between."""
        return max((after - before for times in self.times
                    for before, after in zip(times, times[1:]) if after > since and before < until),
                   default=0.0)

    def moved(self):
        """Every stream has had a token of a second session, or has ended without one."""
        for reply in self.replies:
            if isinstance(reply, Exception):
                raise reply
        return all(reply is not None or (epochs and epochs[-1] > epochs[0])
                   for reply, epochs in zip(self.replies, self.epochs))

    def first_moved(self):
        """When each stream that was moved had its first token of its last session."""
        return [times[epochs.index(epochs[-1])] for times, epochs in zip(self.times, self.epochs)
                if epochs and epochs[-1] > epochs[0]]


def layout_of(name):
    """"tp2 dp2 ep" as a message."""
    sizes = {"tp": 1, "dp": 1, "pp": 1}
    layout = admin_pb2.ReshardRequest().layout
    for word in name.split():
        if word == "ep":
            layout.expert_parallel = True
        else:
            sizes[word[:2]] = int(word[2:])
    layout.tp, layout.dp, layout.pp = sizes["tp"], sizes["dp"], sizes["pp"]
    return layout


def reshard(channel, name, apply=True, on_event=None, deadline_ms=60_000):
    """All events of a change to the layout `name`; raises grpc.RpcError where it fails."""
    request = admin_pb2.ReshardRequest(layout=layout_of(name), apply=apply, deadline_ms=deadline_ms)
    events = []
    for event in admin_pb2_grpc.AdminStub(channel).Reshard(request, timeout=120):
        events.append(event)
        if on_event is not None:
            on_event(event)
    return events
