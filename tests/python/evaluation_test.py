"""bench/eval: its pure parts, its client against a server in this process, and its exit codes."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from concurrent import futures
from pathlib import Path
from unittest import mock

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from evaluation import __main__ as program  # noqa: E402
from evaluation.client import Settings, ask_all, load_stubs, make_request, parse_gate  # noqa: E402
from evaluation.prompts import FormatError, Prompt, read_prompts, read_reference  # noqa: E402
from evaluation.report import Reply, final_answer, shortfalls, summarise, table  # noqa: E402
from evaluation.server import StartError, running_server, serve_command  # noqa: E402

STUBS = load_stubs()
ADD = Prompt("a-0", "addsub", (("user", "1+1"),), "2")
ADD_MORE = Prompt("a-1", "addsub", (("system", "Be brief."), ("user", "2+2")), "4")
MULTIPLY = Prompt("m-0", "mul", (("user", "2*3"),), "6")


class CalculatorServicer(STUBS.services.InferenceServicer):
    """Answers sums of the last message in two Tokens; anything else is INVALID_ARGUMENT."""

    def Generate(self, request, context):
        pb = STUBS.messages
        question = request.chat.messages[-1].content
        if "+" not in question:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"chat: cannot add {question}")
        answer = str(sum(map(int, question.split("+"))))
        first = pb.Tokens(index=0, ids=[6, 7], text=f"<think>\n{question}={answer}\n</th")
        yield pb.GenerateEvent(started=pb.Started(prompt_tokens=9))
        yield pb.GenerateEvent(tokens=first)
        yield pb.GenerateEvent(tokens=pb.Tokens(index=2, ids=[8], text=f"ink>\n{answer}"))
        usage = pb.Usage(prompt_tokens=9, output_tokens=3, heads_total=100, heads_skipped=40)
        yield pb.GenerateEvent(finished=pb.Finished(usage=usage))


@contextlib.contextmanager
def calculator():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    STUBS.services.add_InferenceServicer_to_server(CalculatorServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def write(folder: str, name: str, records: list) -> Path:
    path = Path(folder) / name
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def as_record(prompt: Prompt) -> dict:
    messages = [{"role": role, "content": content} for role, content in prompt.messages]
    return {
        "id": prompt.id,
        "family": prompt.family,
        "messages": messages,
        "answer": prompt.answer,
        "steps": None,
    }


class PromptsTest(unittest.TestCase):
    def test_reads_the_files_of_the_model(self):
        path = ROOT / "models/abacus/eval/short.jsonl"
        prompts = read_prompts(path, limit=3)
        self.assertEqual([p.id for p in prompts], ["short-000", "short-001", "short-002"])
        self.assertEqual([role for role, _ in prompts[0].messages], ["system", "user"])
        self.assertEqual(len(read_prompts(path)), 200)

    def test_names_the_line_that_is_wrong(self):
        with tempfile.TemporaryDirectory() as folder:
            for bad, wanted in [
                ({"id": "x"}, "family"),
                ([], "list"),
                (as_record(ADD) | {"messages": ["hello"]}, "messages"),
            ]:
                path = write(folder, "bad.jsonl", [as_record(ADD), bad])
                with self.assertRaises(FormatError) as raised:
                    read_prompts(path)
                self.assertIn("bad.jsonl:2", str(raised.exception))
                self.assertIn(wanted, str(raised.exception))

    def test_refuses_a_reference_without_text(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(FormatError):
            read_reference(write(folder, "reference.jsonl", [{"id": "a"}]))


class ReportTest(unittest.TestCase):
    def test_the_answer_is_what_follows_the_reasoning(self):
        self.assertEqual(final_answer("<think>\n1+1=2\n</think>\n2"), "2")
        self.assertEqual(final_answer(" 2\n"), "2")
        self.assertEqual(final_answer("<think>\n1+1=2"), "<think>\n1+1=2")

    def test_counts_by_family_and_overall(self):
        replies = [
            Reply("<think>\n1+1=2\n</think>\n2", 10, 5, 0, heads_total=80, heads_skipped=20),
            Reply("5", 10, 5, 2, heads_total=20, heads_skipped=20),
            Reply(error="UNAVAILABLE: gone"),
        ]
        reference = {"a-0": "<think>\n1+1=2\n</think>\n2", "a-1": "4"}
        report = summarise([ADD, ADD_MORE, MULTIPLY], replies, reference, seconds=4.0)
        add, multiply = report.families["addsub"], report.families["mul"]
        self.assertEqual((add.n, add.exact, add.compared, add.equal), (2, 1, 2, 1))
        self.assertEqual((multiply.n, multiply.exact, multiply.failed), (1, 0, 1))
        self.assertEqual(report.mean_exact, 0.25)
        self.assertEqual(report.reference_equal, 0.5)
        self.assertEqual(report.skipped_heads, 0.4)
        self.assertEqual(report.output_tokens_per_second, 5.0)
        self.assertEqual(report.differences, [{"id": "a-1", "text": "5", "reference": "4"}])
        self.assertEqual(report.errors, ["m-0: UNAVAILABLE: gone"])
        self.assertIn("1/2", table(report))

    def test_a_failed_call_is_not_equal_to_an_empty_reference(self):
        report = summarise([ADD], [Reply(error="x")], {"a-0": ""}, 1.0)
        self.assertEqual(report.reference_equal, 0.0)

    def test_shortfalls(self):
        good = summarise([ADD], [Reply("2")], {"a-0": "2"}, 1.0)
        self.assertEqual(shortfalls(good, 1.0, 1.0), [])
        bad = summarise([ADD], [Reply("3")], {"a-0": "2"}, 1.0)
        self.assertEqual(len(shortfalls(bad, 0.98, 0.99)), 2)
        self.assertEqual(shortfalls(bad, None, None), [])
        unknown = summarise([ADD], [Reply("2")], {}, 1.0)
        self.assertIn("nothing was counted", shortfalls(unknown, 0.98, 0.99)[0])
        failed = summarise([ADD], [Reply(error="x")], {}, 1.0)
        self.assertEqual(shortfalls(failed, None, None), ["1 calls failed"])


class ClientTest(unittest.TestCase):
    def test_gates(self):
        pb = STUBS.messages
        self.assertEqual(parse_gate("0.5"), 0.5)
        for wrong in ("1.5", "-1", "nan", "open"):
            with self.assertRaises(ValueError):
                parse_gate(wrong)
        for gate, mode, threshold in [
            (None, pb.AttentionGate.MODE_DEFAULT, 0.0),
            ("off", pb.AttentionGate.MODE_OFF, 0.0),
            ("adaptive", pb.AttentionGate.MODE_ADAPTIVE, 0.0),
            (0.5, pb.AttentionGate.MODE_THRESHOLD, 0.5),
            (0.0, pb.AttentionGate.MODE_THRESHOLD, 0.0),
        ]:
            request = make_request(STUBS, ADD, Settings(gate=gate))
            self.assertEqual(request.options.attention_gate.mode, mode, gate)
            self.assertEqual(request.options.attention_gate.threshold, threshold, gate)

    def test_requests_are_greedy(self):
        request = make_request(STUBS, ADD_MORE, Settings(max_tokens=7, use_cache=False))
        options = request.options
        self.assertTrue(options.sampling.HasField("temperature"))
        self.assertEqual(options.sampling.temperature, 0.0)
        self.assertEqual(options.max_tokens, 7)
        self.assertFalse(options.use_cache)
        self.assertEqual([m.role for m in request.chat.messages], ["system", "user"])

    def test_replies_come_in_the_order_of_the_prompts(self):
        prompts = [
            Prompt(f"a-{i}", "addsub", (("user", f"{i}+{i}"),), str(2 * i)) for i in range(20)
        ]
        seen = []
        with calculator() as target:
            replies, seconds = ask_all(
                target, prompts + [MULTIPLY], Settings(), concurrency=3, progress=seen.append
            )
        self.assertEqual([final_answer(r.text) for r in replies[:20]], [p.answer for p in prompts])
        self.assertEqual(replies[20].error, "INVALID_ARGUMENT: chat: cannot add 2*3")
        self.assertEqual(replies[0].heads_skipped, 40)
        self.assertEqual(seen, list(range(1, 22)))
        self.assertGreater(seconds, 0)


class ServerTest(unittest.TestCase):
    def run_script(self, script: str):
        return running_server([sys.executable, "-c", script])

    def test_yields_the_address_and_ends_the_server(self):
        script = (
            "import os, signal\n"
            "assert 'troupe-eval' in os.environ['XDG_DATA_HOME']\n"
            "print('listening on 127.0.0.1:4321', flush=True)\n"
            "signal.pause()"
        )
        with self.run_script(script) as target:
            self.assertEqual(target, "127.0.0.1:4321")

    def test_says_why_no_server_came(self):
        with self.assertRaisesRegex(StartError, "no such model"):
            with self.run_script("print('no such model')"):
                self.fail("a server without an address")
        with self.assertRaisesRegex(StartError, "build it"):
            with running_server(["/nonexistent/troupe"]):
                self.fail("a server without a program")

    def test_command(self):
        command = serve_command(Path("bin/troupe"), Path("models/abacus"), "f32", "w8a8")
        self.assertEqual(command[:2], ["bin/troupe", "serve"])
        self.assertEqual(command[-4:], ["--dtype", "f32", "--quantize", "w8a8"])


class ProgramTest(unittest.TestCase):
    def run_program(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["bench/eval", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            return program.main(), out.getvalue(), err.getvalue()

    def test_exit_codes(self):
        with tempfile.TemporaryDirectory() as folder, calculator() as target:
            sums = str(write(folder, "sums.jsonl", [as_record(ADD), as_record(ADD_MORE)]))
            products = str(write(folder, "products.jsonl", [as_record(MULTIPLY)]))
            texts = [
                {"id": "a-0", "text": "<think>\n1+1=2\n</think>\n2"},
                {"id": "a-1", "text": ""},
            ]
            reference = str(write(folder, "reference.jsonl", texts))
            thresholds = ["--min-exact", "1", "--min-reference-equal", "0.5"]
            code, out, _ = self.run_program(
                *[sums, reference, "--target", target, "--reference", reference, "-o", "json"],
                *thresholds,
            )
            self.assertEqual(code, 0)
            report = json.loads(out)
            self.assertEqual(report["families"]["addsub"]["exact"], 2)
            self.assertEqual(report["skipped_heads"], 0.4)
            thresholds[-1] = "0.99"
            code, _, err = self.run_program(
                sums, "--target", target, "--reference", reference, *thresholds
            )
            self.assertEqual(code, 1)
            self.assertIn("0.5000, wanted at least 0.99", err)
            code, _, err = self.run_program(products, "--target", target)
            self.assertEqual(code, 1)
            code, _, err = self.run_program(folder + "/missing.jsonl", "--target", target)
            self.assertEqual(code, 2)
            code, _, err = self.run_program(sums, "--troupe", "/nonexistent/troupe")
            self.assertEqual(code, 3)


if __name__ == "__main__":
    unittest.main()
