#include "worker/weight_peer_client.h"

#include <grpcpp/grpcpp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"
#include "troupe/v1/worker.grpc.pb.h"

namespace troupe {
namespace {

constexpr int64_t kLeastBytesPerMs = 4 << 10;
constexpr std::chrono::milliseconds kPatience(10'000);

bool IsIntact(const v1::WeightChunk& chunk) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest = {};
  SHA256(reinterpret_cast<const uint8_t*>(chunk.data().data()), chunk.data().size(), digest.data());
  return chunk.sha256().size() == digest.size() &&
         std::equal(digest.begin(), digest.end(),
                    reinterpret_cast<const uint8_t*>(chunk.sha256().data()));
}

std::string ToBytes(const ModelIdentity& identity) {
  return {identity.sha256.begin(), identity.sha256.end()};
}

class GrpcWeightPeer final : public WeightPeer {
 public:
  GrpcWeightPeer(const std::string& name, const std::string& address)
      : name_(absl::StrCat(name, " at ", address)),
        stub_(
            v1::Worker::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
  }

  std::string Name() const override { return name_; }

  absl::StatusOr<Files> List() override {
    Files files;
    const absl::Status status = Call({}, 0, [&](const v1::WeightChunk& chunk) {
      if (chunk.checkpoint().size() != files.checkpoint.sha256.size()) {
        return absl::DataLossError("found a checkpoint's name that is none");
      }
      std::copy(chunk.checkpoint().begin(), chunk.checkpoint().end(),
                files.checkpoint.sha256.begin());
      for (const v1::WeightFile& file : chunk.files()) {
        files.files.push_back({file.name(), static_cast<int64_t>(file.bytes())});
      }
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    return files;
  }

  absl::Status Read(const ModelIdentity& checkpoint, absl::Span<const FileRange> ranges,
                    absl::FunctionRef<void(std::span<const std::byte>)> take) override {
    v1::ReadWeightsRequest request;
    request.set_checkpoint(ToBytes(checkpoint));
    int64_t wanted = 0;
    for (const FileRange& range : ranges) {
      v1::ByteRange& to = *request.add_ranges();
      to.set_file(static_cast<uint32_t>(range.file));
      to.set_begin(static_cast<uint64_t>(range.begin));
      to.set_bytes(static_cast<uint64_t>(range.bytes));
      to.set_stride(static_cast<uint64_t>(range.stride));
      to.set_count(static_cast<uint64_t>(range.count));
      wanted += range.total();
    }
    int64_t found = 0;
    const absl::Status status = Call(request, wanted, [&](const v1::WeightChunk& chunk) {
      found += static_cast<int64_t>(chunk.data().size());
      if (found > wanted || !IsIntact(chunk)) {
        return absl::DataLossError("found bytes that are not those that were sent");
      }
      take(std::as_bytes(std::span(chunk.data())));
      return absl::OkStatus();
    });
    if (!status.ok() || found == wanted) return status;
    return absl::DataLossError(absl::StrCat("found ", found, " bytes, wanted ", wanted));
  }

 private:
  absl::Status Call(const v1::ReadWeightsRequest& request, int64_t bytes,
                    absl::FunctionRef<absl::Status(const v1::WeightChunk&)> on_chunk) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience +
                         std::chrono::milliseconds(bytes / kLeastBytesPerMs));
    const auto reader = stub_->ReadWeights(&context, request);
    v1::WeightChunk chunk;
    absl::Status status;
    while (status.ok() && reader->Read(&chunk)) status = on_chunk(chunk);
    if (!status.ok()) context.TryCancel();
    const grpc::Status ended = reader->Finish();
    return status.ok() ? FromGrpcStatus(ended) : status;
  }

  const std::string name_;
  const std::unique_ptr<v1::Worker::Stub> stub_;
};

}  // namespace

std::unique_ptr<WeightPeer> DialWeightPeer(const std::string& name, const std::string& address) {
  return std::make_unique<GrpcWeightPeer>(name, address);
}

}  // namespace troupe
