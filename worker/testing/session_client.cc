#include "worker/testing/session_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "base/check.h"
#include "base/status_util.h"
#include "rpc/rpc_status.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {
namespace {

std::shared_ptr<grpc::Channel> Dial(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

struct SessionClient::Stream {
  explicit Stream(const std::string& address)
      : stub(v1::Worker::NewStub(Dial(address))), calls(stub->Session(&context)) {}

  std::unique_ptr<v1::Worker::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> calls;
  bool finished = false;
};

SessionClient::SessionClient(const std::string& address)
    : stream_(std::make_unique<Stream>(address)) {}

SessionClient::~SessionClient() {
  if (stream_->finished) return;
  stream_->context.TryCancel();
  Close().IgnoreError();
}

absl::StatusOr<v1::WorkerInfo> SessionClient::Hello(uint64_t epoch) {
  v1::SessionRequest request;
  request.mutable_hello()->set_coordinator("test");
  request.mutable_hello()->set_epoch(epoch);
  stream_->calls->Write(request);
  v1::SessionReply reply;
  if (!stream_->calls->Read(&reply)) return Close();
  CHECK(reply.has_info());
  info_ = reply.info();
  epoch_ = epoch;
  next_page_.assign(info_.groups_size(), 0);
  return info_;
}

v1::StepPlan SessionClient::NextPlan() {
  v1::StepPlan plan;
  plan.set_epoch(epoch_);
  plan.set_step(++step_);
  return plan;
}

void SessionClient::Send(const v1::StepPlan& plan) {
  v1::SessionRequest request;
  *request.mutable_plan() = plan;
  stream_->calls->Write(request);  // Receive shows what was wrong
}

absl::StatusOr<v1::StepResult> SessionClient::Receive() {
  v1::SessionReply reply;
  if (!stream_->calls->Read(&reply)) {
    const absl::Status status = Close();
    return status.ok() ? absl::OutOfRangeError("the session has ended") : status;
  }
  return reply.result();
}

absl::StatusOr<v1::StepResult> SessionClient::Run(const v1::StepPlan& plan) {
  Send(plan);
  return Receive();
}

absl::Status SessionClient::Close() {
  if (stream_->finished) return absl::FailedPreconditionError("the session was closed before");
  stream_->calls->WritesDone();
  v1::SessionReply reply;
  while (stream_->calls->Read(&reply)) {
  }
  stream_->finished = true;
  return FromGrpcStatus(stream_->calls->Finish());
}

v1::NewSequence SessionClient::MakeSequence(uint32_t slot, const std::vector<uint32_t>& tokens) {
  v1::NewSequence sequence;
  sequence.set_slot(slot);
  sequence.mutable_tokens()->Add(tokens.begin(), tokens.end());
  sequence.set_prompt_tokens(static_cast<uint32_t>(tokens.size()));
  sequence.mutable_sampling()->set_temperature(0);
  sequence.mutable_sampling()->set_seed(1);
  return sequence;
}

void SessionClient::Add(v1::StepPlan& plan, const v1::NewSequence& sequence, uint32_t capacity) {
  *plan.add_new_sequences() = sequence;
  const uint32_t blocks = (capacity + info_.block_tokens() - 1) / info_.block_tokens();
  for (int group = 0; group < info_.groups_size(); ++group) {
    for (uint32_t block = 0; block < blocks; ++block) {
      CHECK_LT(next_page_[group], info_.groups(group).page_count()) << "group " << group;
      plan.add_grant_slot(sequence.slot());
      plan.add_grant_group(group);
      plan.add_grant_block(block);
      plan.add_grant_page(next_page_[group]++);
    }
  }
}

void SessionClient::AddRow(v1::StepPlan& plan, uint32_t slot, uint32_t start, uint32_t count) {
  plan.add_row_slot(slot);
  plan.add_row_start(start);
  plan.add_row_count(count);
}

absl::StatusOr<std::vector<uint32_t>> SessionClient::Generate(const v1::NewSequence& sequence,
                                                              uint32_t chunk, uint32_t limit,
                                                              uint32_t stop) {
  const auto length = static_cast<uint32_t>(sequence.tokens_size());
  v1::StepPlan plan = NextPlan();
  Add(plan, sequence, length + limit + 1);
  uint32_t start = 0;
  while (length - start > chunk) {
    AddRow(plan, sequence.slot(), start, chunk);
    TROUPE_RETURN_IF_ERROR(Run(plan).status());
    start += chunk;
    plan = NextPlan();
  }
  AddRow(plan, sequence.slot(), start, length - start);
  Send(plan);
  std::vector<uint32_t> tokens;
  while (true) {
    // The token that this row computes is still on its way.
    plan = NextPlan();
    AddRow(plan, sequence.slot(), length + static_cast<uint32_t>(tokens.size()), 1);
    Send(plan);
    TROUPE_ASSIGN_OR_RETURN(const v1::StepResult result, Receive());
    tokens.push_back(result.sampled_token(0));
    if (tokens.back() == stop || tokens.size() == limit) break;
  }
  TROUPE_RETURN_IF_ERROR(Receive().status());  // of the row that was one too many
  plan = NextPlan();
  plan.add_finished_slots(sequence.slot());
  TROUPE_RETURN_IF_ERROR(Run(plan).status());
  return tokens;
}

}  // namespace troupe
