#include "worker/weight_service.h"

#include <grpcpp/grpcpp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rpc/rpc_status.h"

namespace troupe {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint64_t kMostBytes = uint64_t{1} << 50;  // keeps products of a range from wrapping

std::string ToBytes(const ModelIdentity& identity) {
  return {identity.sha256.begin(), identity.sha256.end()};
}

absl::Status CheckRange(const v1::ByteRange& range, const SafetensorsCheckpoint& files) {
  const auto bad = [&](absl::string_view wanted) {
    return absl::InvalidArgumentError(absl::StrCat(
        "range: found ", range.count(), " times ", range.bytes(), " bytes, ", range.stride(),
        " apart, from ", range.begin(), " of file ", range.file(), ", wanted ", wanted));
  };
  if (range.file() >= files.files().size()) {
    return bad(absl::StrCat("a file less than ", files.files().size()));
  }
  const auto size = static_cast<uint64_t>(files.files()[range.file()]->bytes().size());
  if (range.bytes() == 0 || range.count() == 0 || range.count() > size || size > kMostBytes ||
      range.stride() > size || range.bytes() > size || range.begin() > size) {
    return bad("some bytes of the file");
  }
  const unsigned __int128 end =
      static_cast<unsigned __int128>(range.stride()) * (range.count() - 1) + range.begin() +
      range.bytes();
  return end <= size ? absl::OkStatus() : bad(absl::StrCat("an end within ", size, " bytes"));
}

class ReadCall final : public grpc::ServerWriteReactor<v1::WeightChunk>,
                       public std::enable_shared_from_this<ReadCall> {
 public:
  ReadCall(v1::ReadWeightsRequest request, ServedCheckpoint served, Executor* sender)
      : request_(std::move(request)), served_(std::move(served)), sender_(sender) {}

  void Start() {
    self_ = shared_from_this();
    const absl::Status status = Check();
    if (!status.ok()) return Finish(ToGrpcStatus(status));
    PostNext();
  }

 private:
  absl::Status Check() const {
    if (served_.files == nullptr) {
      return absl::FailedPreconditionError("has no weights of its own to be read");
    }
    if (!request_.checkpoint().empty() && request_.checkpoint() != ToBytes(served_.identity)) {
      return absl::FailedPreconditionError(
          absl::StrCat("has another checkpoint, ", served_.identity.Hex()));
    }
    for (const v1::ByteRange& range : request_.ranges()) {
      const absl::Status status = CheckRange(range, served_.files->files());
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  void PostNext() {
    const bool posted = sender_->Post([self = self_] { self->Next(); });
    if (!posted) {
      Finish(ToGrpcStatus(absl::UnavailableError("the worker is shutting down")));
    }
  }

  void Next() {
    if (cancelled_) return Finish(grpc::Status::CANCELLED);
    if (request_.ranges().empty()) {
      List();
    } else {
      Fill();
    }
    last_ = range_ >= request_.ranges_size();
    StartWrite(&chunk_);
  }

  void List() {
    chunk_.set_checkpoint(ToBytes(served_.identity));
    for (const auto& file : served_.files->files().files()) {
      v1::WeightFile& to = *chunk_.add_files();
      to.set_name(std::filesystem::path(file->path()).filename().string());
      to.set_bytes(file->bytes().size());
    }
  }

  void Fill() {
    std::string& data = *chunk_.mutable_data();
    data.clear();
    while (data.size() < kChunkBytes && range_ < request_.ranges_size()) {
      const v1::ByteRange& range = request_.ranges(range_);
      const std::span<const std::byte> file = served_.files->files().files()[range.file()]->bytes();
      const size_t count = std::min<size_t>(kChunkBytes - data.size(), range.bytes() - at_);
      data.append(reinterpret_cast<const char*>(file.data()) + range.begin() +
                      stretch_ * range.stride() + at_,
                  count);
      at_ += count;
      if (at_ < range.bytes()) continue;
      at_ = 0;
      if (++stretch_ < range.count()) continue;
      stretch_ = 0;
      ++range_;
    }
    std::array<uint8_t, SHA256_DIGEST_LENGTH> digest = {};
    SHA256(reinterpret_cast<const uint8_t*>(data.data()), data.size(), digest.data());
    chunk_.set_sha256(digest.data(), digest.size());
  }

  void OnWriteDone(bool ok) override {
    if (!ok || last_) return Finish(ok ? grpc::Status::OK : grpc::Status::CANCELLED);
    PostNext();
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { self_.reset(); }

  const v1::ReadWeightsRequest request_;
  const ServedCheckpoint served_;
  Executor* const sender_;
  std::atomic<bool> cancelled_ = false;
  // All below are gRPC's while it writes, else the sender's.
  v1::WeightChunk chunk_;
  int range_ = 0;
  uint64_t stretch_ = 0;
  uint64_t at_ = 0;  // of the stretch
  bool last_ = false;
  std::shared_ptr<ReadCall> self_;
};

}  // namespace

grpc::ServerWriteReactor<v1::WeightChunk>* ReadWeightsCall(const v1::ReadWeightsRequest& request,
                                                           ServedCheckpoint served,
                                                           Executor* sender) {
  auto call = std::make_shared<ReadCall>(request, std::move(served), sender);
  call->Start();
  return call.get();
}

}  // namespace troupe
