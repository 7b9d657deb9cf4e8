#include "worker/peer_checkpoint.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_util.h"

namespace troupe {
namespace {

// A header of the longest that safetensors allows and of a small file's.
constexpr int64_t kLengthBytes = 8;

// Read while a checkpoint is bound: groups of columns, shapes.
bool IsSmall(const TensorView& tensor) {
  const bool integers = tensor.dtype == StoredDType::kI32 || tensor.dtype == StoredDType::kI64;
  return integers && tensor.shape.size() <= 1;
}

}  // namespace

// One file's place in memory.
class PeerCheckpoint::Image {
 public:
  static absl::StatusOr<std::shared_ptr<Image>> Make(const WeightPeer::File& file) {
    void* data = mmap(nullptr, static_cast<size_t>(file.bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data != MAP_FAILED) {
      return std::make_shared<Image>(static_cast<std::byte*>(data), file.bytes);
    }
    return absl::ResourceExhaustedError(
        absl::StrCat(file.name, ": found no room for ", file.bytes, " bytes of addresses"));
  }
  Image(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image() { munmap(data_, static_cast<size_t>(bytes_)); }

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Gives back whole pages: what lies beside is others'.
  void Release(int64_t begin, int64_t end) const {
    const int64_t page = sysconf(_SC_PAGESIZE);
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin < end) madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
  }

 private:
  std::byte* const data_;
  const int64_t bytes_;
};

PeerCheckpoint::PeerCheckpoint(PeerPlan plan, std::optional<Local> local)
    : plan_(std::move(plan)), local_(std::move(local)), failed_(plan_.peers.size()) {}

PeerCheckpoint::~PeerCheckpoint() = default;

absl::StatusOr<std::unique_ptr<PeerCheckpoint>> PeerCheckpoint::Open(
    const std::string& folder, PeerPlan plan, const std::optional<Local>& local) {
  std::unique_ptr<PeerCheckpoint> opened(new PeerCheckpoint(std::move(plan), local));
  const auto& peers = opened->plan_.peers;
  std::optional<WeightPeer::Files> first;
  for (size_t p = 0; p < peers.size(); ++p) {
    absl::StatusOr<WeightPeer::Files> files = peers[p]->List();
    opened->failed_[p] = Annotate(files.status(), peers[p]->Name());
    if (!files.ok()) continue;
    if (!first.has_value()) {
      first = *std::move(files);
      opened->identity_ = first->checkpoint;
    } else if (files->checkpoint != first->checkpoint) {
      opened->failed_[p] = absl::FailedPreconditionError(
          absl::StrCat(peers[p]->Name(), ": has another checkpoint, ", files->checkpoint.Hex()));
    }
  }
  if (!first.has_value()) {
    std::string said;
    for (const absl::Status& status : opened->failed_)
      absl::StrAppend(&said, "; ", status.message());
    return absl::UnavailableError(absl::StrCat("no peer has weights", said));
  }
  TROUPE_RETURN_IF_ERROR(opened->ReadHeaders(folder, *first));
  return opened;
}

absl::Status PeerCheckpoint::ReadHeaders(const std::string& folder,
                                         const WeightPeer::Files& listed) {
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  for (const WeightPeer::File& file : listed.files) {
    const auto index = static_cast<int>(images_.size());
    const std::string path = absl::StrCat(folder, "/", file.name);
    if (file.bytes < kLengthBytes) {
      return absl::DataLossError(absl::StrCat(path, ": found ", file.bytes, " bytes at a peer"));
    }
    TROUPE_ASSIGN_OR_RETURN(images_.emplace_back(), Image::Make(file));
    const Image& image = *images_.back();
    TROUPE_RETURN_IF_ERROR(Fetch({{.file = index, .bytes = kLengthBytes}}, std::nullopt));
    uint64_t length = 0;
    std::memcpy(&length, image.data(), sizeof(length));
    const int64_t header = static_cast<int64_t>(
        std::min<uint64_t>(length, static_cast<uint64_t>(file.bytes - kLengthBytes)));
    if (header > 0) {
      TROUPE_RETURN_IF_ERROR(
          Fetch({{.file = index, .begin = kLengthBytes, .bytes = header}}, std::nullopt));
    }
    const std::span<const std::byte> bytes(image.data(), static_cast<size_t>(file.bytes));
    TROUPE_ASSIGN_OR_RETURN(auto parsed, SafetensorsFile::Parse(path, bytes, images_.back()));
    TROUPE_RETURN_IF_ERROR(ReadSmall(*parsed, index));
    files.push_back(std::move(parsed));
  }
  TROUPE_ASSIGN_OR_RETURN(SafetensorsCheckpoint all, SafetensorsCheckpoint::Of(std::move(files)));
  index_.emplace(all);
  for (const auto& [name, view] : all.tensors()) {
    TROUPE_RETURN_IF_ERROR(index_->Of(view.bytes, name).status());
  }
  TROUPE_ASSIGN_OR_RETURN(checkpoint_, Checkpoint::OpenOver(folder, std::move(all)));
  return absl::OkStatus();
}

absl::Status PeerCheckpoint::ReadSmall(const SafetensorsFile& file, int index) {
  std::vector<FileRange> small;
  for (const TensorView& tensor : file.tensors()) {
    if (!IsSmall(tensor) || tensor.bytes.empty()) continue;
    small.push_back({.file = index,
                     .begin = tensor.bytes.data() - images_[index]->data(),
                     .bytes = static_cast<int64_t>(tensor.bytes.size())});
  }
  return small.empty() ? absl::OkStatus() : Fetch(small, std::nullopt);
}

absl::StatusOr<std::vector<FileRange>> PeerCheckpoint::RangesOf(
    absl::Span<const WeightPatch> patches) const {
  std::vector<FileRange> all;
  for (const WeightPatch& patch : patches) {
    TROUPE_ASSIGN_OR_RETURN(const std::vector<FileRange> ranges, index_->Of(patch.view));
    all.insert(all.end(), ranges.begin(), ranges.end());
  }
  return all;
}

absl::Status PeerCheckpoint::Bring(const WeightPart& part, absl::Span<const WeightPatch> patches) {
  TROUPE_ASSIGN_OR_RETURN(const std::vector<FileRange> ranges, RangesOf(patches));
  WeightPart key = part;
  key.slice = Slice();
  const auto planned = plan_.sources.find(key);
  return Annotate(
      Fetch(ranges, planned == plan_.sources.end() ? std::optional<size_t>() : planned->second),
      NameOf(part));
}

void PeerCheckpoint::Release(absl::Span<const WeightPatch> patches) {
  const absl::StatusOr<std::vector<FileRange>> ranges = RangesOf(patches);
  if (!ranges.ok()) return;  // Bring has said so
  for (const FileRange& range : *ranges) images_[range.file]->Release(range.begin, range.end());
}

absl::Status PeerCheckpoint::Fetch(absl::Span<const FileRange> ranges,
                                   std::optional<size_t> planned) {
  if (planned.has_value() && FromPeer(*planned, ranges).ok()) return absl::OkStatus();
  // Headers are all that is read before the checkpoint is bound, and files have them as well; but
  // whose files they are is known by reading all of them.
  const bool headers = !checkpoint_.has_value();
  if (!headers && FromFiles(ranges).ok()) return absl::OkStatus();
  for (size_t p = 0; p < plan_.peers.size(); ++p) {
    if (FromPeer(p, ranges).ok()) return absl::OkStatus();
  }
  std::string said(local_failed_.message());
  for (const absl::Status& status : failed_) absl::StrAppend(&said, "; ", status.message());
  return absl::UnavailableError(absl::StrCat("nobody has these weights: ", said));
}

absl::Status PeerCheckpoint::FromPeer(size_t peer, absl::Span<const FileRange> ranges) {
  if (!failed_[peer].ok()) return failed_[peer];
  size_t range = 0;
  int64_t stretch = 0;
  int64_t at = 0;  // of the stretch
  const auto scatter = [&](std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const FileRange& to = ranges[range];
      const auto count = std::min(static_cast<int64_t>(bytes.size()), to.bytes - at);
      std::memcpy(images_[to.file]->data() + to.begin + stretch * to.stride + at, bytes.data(),
                  static_cast<size_t>(count));
      read_.peers += count;
      bytes = bytes.subspan(static_cast<size_t>(count));
      at += count;
      if (at < to.bytes) return;
      at = 0;
      if (++stretch < to.count) continue;
      stretch = 0;
      ++range;
    }
  };
  failed_[peer] =
      Annotate(plan_.peers[peer]->Read(identity_, ranges, scatter), plan_.peers[peer]->Name());
  if (!failed_[peer].ok()) {
    LOG(WARNING) << "a peer gives no weights, others will: " << failed_[peer];
  }
  return failed_[peer];
}

absl::Status PeerCheckpoint::FromFiles(absl::Span<const FileRange> ranges) {
  if (!local_.has_value()) {
    local_failed_ = absl::NotFoundError("there are no weights in this machine's folder");
  } else if (!std::exchange(local_checked_, true)) {
    const absl::StatusOr<ModelIdentity> own = local_->identity();
    local_failed_ = own.status();
    if (own.ok() && *own != identity_) {
      local_failed_ = absl::FailedPreconditionError(
          absl::StrCat("this machine's folder holds another checkpoint, ", own->Hex(),
                       ", than the peers' ", identity_.Hex()));
    }
  }
  TROUPE_RETURN_IF_ERROR(local_failed_);
  const FileIndex own(local_->files->files());
  for (const FileRange& range : ranges) {
    for (int64_t s = 0; s < range.count; ++s) {
      const int64_t begin = range.begin + s * range.stride;
      std::memcpy(images_[range.file]->data() + begin, own.file(range.file).data() + begin,
                  static_cast<size_t>(range.bytes));
    }
    read_.disk += range.total();
  }
  return absl::OkStatus();
}

}  // namespace troupe
