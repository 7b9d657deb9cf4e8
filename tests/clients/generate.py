import sys
import grpc
from troupe.v1 import inference_pb2, inference_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
stub = inference_pb2_grpc.InferenceStub(channel)
chat = inference_pb2.ChatMessages(messages=[{"role": "user", "content": sys.argv[2]}])
for event in stub.Generate(inference_pb2.GenerateRequest(chat=chat)):
    print(event.tokens.text, end="", flush=True)
print()
