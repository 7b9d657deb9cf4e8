"""What a request may ask for, and what a bad or abandoned one must not do: typed errors, memory
given back, and a server that goes on. One cluster serves all tests."""

import unittest

import grpc
from grpc import StatusCode
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

from harness import (INFERENCE, ClusterTest, chat_request, dial, generate,
                     health, inference_pb2, inference_pb2_grpc, wait_until)

GenerateRequest = inference_pb2.GenerateRequest
Finished = inference_pb2.Finished
QUESTION = "What is 4821 * 7306?"
ANSWER = "35222226"


class Limits(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.owner = ClusterTest()
        ClusterTest.setUp(cls.owner)
        cls.addClassCleanup(cls.owner.doCleanups)
        cls.coordinator = cls.owner.start_coordinator()
        cls.owner.start_worker(cls.coordinator, "--name", "w1")
        cls.owner.wait_workers(cls.coordinator, 1)
        cls.channel = cls.coordinator.channel

    def tearDown(self):
        """Whatever a test did: the memory is free and the next client gets its answer."""
        self.assert_idle(self.coordinator)
        self.assertEqual(generate(self.channel, chat_request("What is 12 * 34?")).answer.strip(),
                         "408")

    def endless(self):
        return chat_request(QUESTION, ignore_eos=True, max_tokens=20000)

    def wait_running(self):
        def running():
            [worker] = self.status(self.coordinator).workers
            return worker.running == 1 and any(group.pages_used for group in worker.groups)
        wait_until(running, "the request runs and holds pages")

    # Abandoned requests.

    def test_cancel_frees_memory(self):
        call = inference_pb2_grpc.InferenceStub(self.channel).Generate(self.endless())
        self.assertEqual(next(call).WhichOneof("event"), "started")
        self.wait_running()
        call.cancel()
        self.assert_idle(self.coordinator)

    def test_disconnect_frees_memory(self):
        channel = dial(self.coordinator.address)
        call = inference_pb2_grpc.InferenceStub(channel).Generate(self.endless())
        next(call)
        self.wait_running()
        channel.close()
        self.assert_idle(self.coordinator)

    def test_deadline_frees_memory(self):
        with self.assertRaises(grpc.RpcError) as raised:
            generate(self.channel, self.endless(), timeout=1.5)
        self.assertEqual(raised.exception.code(), StatusCode.DEADLINE_EXCEEDED)
        self.assert_idle(self.coordinator)

    # Hostile input.

    def refuse(self, details, request, code=StatusCode.INVALID_ARGUMENT, **arguments):
        with self.subTest(details):
            self.assert_fails(code, details, request, self.channel, **arguments)

    def test_bad_prompts(self):
        self.refuse("prompt", GenerateRequest())
        self.refuse("text", GenerateRequest(text=""))
        self.refuse("chat.messages", GenerateRequest(chat={}))
        self.refuse("token_ids", GenerateRequest(token_ids={}))
        self.refuse("token_ids.ids: found 4294967295",
                    GenerateRequest(token_ids={"ids": [1, 2**32 - 1]}))
        self.refuse("model", GenerateRequest(text="1+1=", model="another"), StatusCode.NOT_FOUND)
        self.refuse("request_id", GenerateRequest(text="1+1=", request_id="x" * 10000))
        self.refuse("chat", GenerateRequest(chat={
            "messages": [{"role": "user", "content": "hi"}], "template_variables_json": "{"}))
        self.refuse("prompt", GenerateRequest(token_ids={"ids": [5] * 70000}))

    def test_ten_megabytes_of_text_hold_nobody_up(self):
        self.refuse("prompt: found 10485760 tokens", GenerateRequest(text="a" * (10 << 20)))
        self.refuse("prompt", chat_request("\N{GRINNING FACE}" * (10 << 18)))
        stub = inference_pb2_grpc.InferenceStub(self.channel)
        huge = [stub.Generate(GenerateRequest(text="1+2*3 " * ((10 << 20) // 6)))
                for _ in range(4)]
        self.assertEqual(generate(self.channel, chat_request(QUESTION)).answer.strip(), ANSWER)
        self.assertTrue(all(call.is_active() for call in huge), "the small one waited")
        for call in huge:
            call.cancel()

    def test_bad_options(self):
        cases = {
            "max_tokens": {"max_tokens": 2**32 - 1},
            "sampling.temperature": {"sampling": {"temperature": float("nan")}},
            "sampling.temperature: found -1": {"sampling": {"temperature": -1}},
            "sampling.top_p": {"sampling": {"top_p": 0}},
            "sampling.min_p": {"sampling": {"min_p": 2}},
            "sampling.repetition_penalty": {"sampling": {"repetition_penalty": 0}},
            "sampling.presence_penalty": {"sampling": {"presence_penalty": float("inf")}},
            "sampling.frequency_penalty": {"sampling": {"frequency_penalty": -3}},
            "sampling.logprobs": {"sampling": {"logprobs": 21}},
            "stop: found a string of 0": {"stop": [""]},
            "stop: found 65": {"stop": ["x"] * 65},
            "stop_token_ids": {"stop_token_ids": range(65)},
            "attention_gate.threshold": {"attention_gate": {"mode": "MODE_THRESHOLD",
                                                            "threshold": 7}},
            "attention_gate.mode": {"attention_gate": {"mode": 9}},
            "priority": {"priority": 101},
        }
        for details, options in cases.items():
            self.refuse(details, chat_request(QUESTION, **options))

    def test_bad_tenants(self):
        for tenant in ("", "a/b", "x" * 1000, "white space"):
            self.refuse("tenant", chat_request(QUESTION), tenant=tenant)

    def test_extreme_but_legal_options_serve(self):
        reply = generate(self.channel, chat_request(
            QUESTION, max_tokens=16, priority=-100, stop=["\N{GRINNING FACE}" * 200],
            sampling={"temperature": 100, "top_k": 2**32 - 1, "top_p": 1e-30, "min_p": 1,
                      "repetition_penalty": 100, "presence_penalty": -2, "frequency_penalty": 2,
                      "seed": 2**64 - 1, "logprobs": 20}))
        self.assertGreater(len(reply.tokens), 0)
        self.assertEqual(reply.started.seed, 2**64 - 1)

    # What a request may ask for.

    def test_the_whole_stream(self):
        reply = generate(self.channel, chat_request(QUESTION))
        kinds = [event.WhichOneof("event") for event in reply.events]
        self.assertEqual((kinds[0], kinds[-1]), ("started", "finished"))
        self.assertEqual(kinds.count("started") + kinds.count("finished"), 2)
        self.assertEqual(reply.answer.strip(), ANSWER)
        self.assertEqual(reply.started.model, "abacus")
        self.assertEqual(reply.usage.prompt_tokens, reply.started.prompt_tokens)
        self.assertEqual(reply.usage.output_tokens, len(reply.tokens))
        self.assertEqual(reply.finished.reason, Finished.REASON_STOP)
        self.assertGreater(reply.usage.heads_total, 0)
        self.assertGreaterEqual(reply.usage.total_us, reply.usage.ttft_us)
        self.assertEqual([step.index for step in reply.steps], list(range(len(reply.steps))))
        self.assertGreater(len(reply.steps), 1)
        for step in reply.steps:
            self.assertIn(step.text, reply.text)

    def test_max_tokens(self):
        reply = generate(self.channel, chat_request(QUESTION, max_tokens=5))
        self.assertEqual(len(reply.tokens), 5)
        self.assertEqual(reply.finished.reason, Finished.REASON_MAX_TOKENS)

    def test_max_steps(self):
        whole = generate(self.channel, chat_request(QUESTION))
        reply = generate(self.channel, chat_request(QUESTION, max_steps=2))
        self.assertEqual([step.text for step in reply.steps],
                         [step.text for step in whole.steps[:2]])
        self.assertEqual(reply.finished.reason, Finished.REASON_MAX_STEPS)
        self.assertTrue(whole.text.startswith(reply.text))

    def test_stop_strings(self):
        whole = generate(self.channel, chat_request(QUESTION))
        middle = whole.text[len(whole.text) // 2:][:3]
        reply = generate(self.channel, chat_request(QUESTION, stop=["never said", middle]))
        self.assertEqual(reply.text, whole.text[:whole.text.index(middle)])
        self.assertEqual(reply.finished.stop_string, middle)
        self.assertEqual(reply.finished.reason, Finished.REASON_STOP)

    def test_logprobs(self):
        reply = generate(self.channel, chat_request(
            QUESTION, sampling={"temperature": 0, "logprobs": 3}))
        self.assertEqual(len(reply.logprobs), len(reply.tokens))
        for token, row in zip(reply.tokens, reply.logprobs):
            self.assertLessEqual(row.logprob, 0)
            self.assertEqual(row.top_ids[0], token, "greedy takes the best")
            self.assertEqual(row.top_logprobs[0], row.logprob)
            self.assertEqual(list(row.top_logprobs), sorted(row.top_logprobs, reverse=True))
        self.assertEqual(generate(self.channel, chat_request(QUESTION)).logprobs, [])

    def test_token_ids_and_text_as_prompts(self):
        reply = generate(self.channel, GenerateRequest(
            text="1 + 1", options={"max_tokens": 3, "ignore_eos": True}))
        self.assertEqual(len(reply.tokens), 3)
        reply = generate(self.channel, GenerateRequest(
            token_ids={"ids": [5, 6, 7]}, options={"max_tokens": 3, "ignore_eos": True}))
        self.assertEqual((len(reply.tokens), reply.started.prompt_tokens), (3, 3))

    def test_same_seed_same_text(self):
        request = chat_request(QUESTION, sampling={"temperature": 1.5, "seed": 7}, max_tokens=40)
        self.assertEqual(generate(self.channel, request).tokens,
                         generate(self.channel, request).tokens)

    def test_trace(self):
        reply = generate(self.channel, chat_request(QUESTION, trace=True))
        spans = {span.id: span for span in reply.finished.trace.spans}
        roots = [span for span in spans.values() if span.parent == 0]
        self.assertEqual(len(roots), 1)
        names = [span.name for span in spans.values()]
        self.assertIn("prefill", names)
        texts = [span.text for span in spans.values()]
        for step in reply.steps:
            self.assertIn(step.text, texts)
        for span in spans.values():
            self.assertLessEqual(span.start_us, span.end_us)
            if span.parent:
                self.assertIn(span.parent, spans)
        self.assertEqual(
            len(generate(self.channel, chat_request(QUESTION)).finished.trace.spans), 0)

    def test_attention_gate(self):
        off = generate(self.channel, chat_request(QUESTION, attention_gate={"mode": "MODE_OFF"}))
        self.assertEqual(off.usage.heads_skipped, 0)
        half = generate(self.channel, chat_request(
            QUESTION, attention_gate={"mode": "MODE_THRESHOLD", "threshold": 0.5}))
        self.assertGreater(half.usage.heads_skipped, 0)

    # Beside the service.

    def test_health(self):
        self.assertEqual(health(self.channel), "SERVING")
        self.assertEqual(health(self.channel, INFERENCE), "SERVING")
        self.assertIsNone(health(self.channel, "troupe.v1.Nothing"))

    def test_reflection(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = set(database.get_services())
        self.assertLessEqual({INFERENCE, "troupe.v1.Admin", "grpc.health.v1.Health"}, services)
        file = database.FindFileContainingSymbol(INFERENCE)
        self.assertEqual(file.service[0].method[0].name, "Generate")

    def test_status(self):
        status = self.status(self.coordinator)
        self.assertTrue(status.ready)
        self.assertEqual(status.model, "abacus")
        before = (status.requests_finished, status.tokens_generated)
        reply = generate(self.channel, chat_request(QUESTION), tenant="counted")
        wait_until(lambda: self.status(self.coordinator).requests_finished == before[0] + 1,
                   "the finished request is counted")
        status = self.status(self.coordinator)
        self.assertGreaterEqual(status.tokens_generated, before[1] + len(reply.tokens))
        served = {tenant.tenant: tenant.tokens_served for tenant in status.tenants}
        self.assertGreater(served["counted"], 0)


if __name__ == "__main__":
    unittest.main()
