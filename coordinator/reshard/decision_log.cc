#include "coordinator/reshard/decision_log.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"

namespace troupe {
namespace {

constexpr size_t kSumBytes = 8;

std::string Sum(absl::string_view text) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest = {};
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest.data());
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), kSumBytes));
}

struct ParsedLine {
  DecisionKind kind;
  v1::ShardMap map;
};

// Nothing where the line is damaged.
std::optional<ParsedLine> ParseLine(absl::string_view line) {
  const size_t last_space = line.rfind(' ');
  if (last_space == absl::string_view::npos) return std::nullopt;
  const absl::string_view text = line.substr(0, last_space);
  if (Sum(text) != line.substr(last_space + 1)) return std::nullopt;
  const size_t first = text.find(' ');
  const size_t second = first == text.npos ? text.npos : text.find(' ', first + 1);
  if (second == text.npos) return std::nullopt;
  const absl::string_view word = text.substr(0, first);
  if (word != "begin" && word != "decide") return std::nullopt;
  ParsedLine parsed;
  parsed.kind = word == "begin" ? DecisionKind::kBegin : DecisionKind::kDecide;
  const std::string json(text.substr(second + 1));
  if (!google::protobuf::util::JsonStringToMessage(json, &parsed.map).ok()) return std::nullopt;
  uint64_t epoch = 0;
  if (!absl::SimpleAtoi(text.substr(first + 1, second - first - 1), &epoch)) return std::nullopt;
  if (epoch != parsed.map.epoch()) return std::nullopt;
  return parsed;
}

class DecisionFile final : public DecisionLog {
 public:
  DecisionFile(std::string path, Executor* blocking)
      : file_(std::make_shared<File>(std::move(path))), blocking_(blocking) {}

  void Read(absl::AnyInvocable<void(absl::StatusOr<DecisionRecord>)> done) override {
    blocking_->Post([file = file_, done = std::move(done)]() mutable { done(file->Open()); });
  }

  void Append(DecisionKind kind, const v1::ShardMap& map,
              absl::AnyInvocable<void(absl::Status)> done) override {
    blocking_->Post([file = file_, line = DecisionLine(kind, map),
                     done = std::move(done)]() mutable { done(file->Append(line)); });
  }

 private:
  // Used on the blocking thread alone.
  class File {
   public:
    explicit File(std::string path) : path_(std::move(path)) {}
    ~File() {
      if (fd_ >= 0) close(fd_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    absl::StatusOr<DecisionRecord> Open() {
      fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (fd_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path_));
      TROUPE_RETURN_IF_ERROR(SyncFolder());
      std::string bytes;
      std::array<char, 65536> buffer;
      ssize_t got = 0;
      while ((got = read(fd_, buffer.data(), buffer.size())) > 0) bytes.append(buffer.data(), got);
      if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path_));
      absl::StatusOr<DecisionRecord> record = ReadDecisions(bytes, &good_bytes_);
      if (!record.ok()) return Annotate(record.status(), path_);
      TROUPE_RETURN_IF_ERROR(CutBack());
      return record;
    }

    absl::Status Append(const std::string& line) {
      if (fd_ < 0) return absl::FailedPreconditionError(absl::StrCat(path_, " is not open"));
      size_t at = 0;
      while (at < line.size()) {
        const ssize_t put =
            pwrite(fd_, line.data() + at, line.size() - at, static_cast<off_t>(good_bytes_ + at));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return Undo(absl::ErrnoToStatus(errno, absl::StrCat("write ", path_)));
        at += static_cast<size_t>(put);
      }
      if (fsync(fd_) != 0) return Undo(absl::ErrnoToStatus(errno, absl::StrCat("fsync ", path_)));
      good_bytes_ += line.size();
      return absl::OkStatus();
    }

   private:
    absl::Status CutBack() {
      if (ftruncate(fd_, static_cast<off_t>(good_bytes_)) != 0 || fsync(fd_) != 0) {
        return absl::ErrnoToStatus(errno, absl::StrCat("truncate ", path_));
      }
      return absl::OkStatus();
    }

    absl::Status Undo(absl::Status reason) {
      const absl::Status cut = CutBack();
      CHECK_OK(cut) << "after " << reason << ": whether a layout was decided is unknown here; "
                    << "the next start reads it from " << path_;
      return reason;
    }

    // A file that was just made must survive a crash under its name.
    absl::Status SyncFolder() const {
      const std::string folder = path_.substr(0, path_.rfind('/') + 1);
      const int fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", folder));
      const int synced = fsync(fd);
      const int error = errno;
      close(fd);
      return synced == 0 ? absl::OkStatus()
                         : absl::ErrnoToStatus(error, absl::StrCat("fsync ", folder));
    }

    const std::string path_;
    int fd_ = -1;
    size_t good_bytes_ = 0;
  };

  const std::shared_ptr<File> file_;
  Executor* const blocking_;
};

}  // namespace

std::string DecisionLine(DecisionKind kind, const v1::ShardMap& map) {
  std::string json;
  CHECK(google::protobuf::util::MessageToJsonString(map, &json).ok());
  const std::string text =
      absl::StrCat(kind == DecisionKind::kBegin ? "begin " : "decide ", map.epoch(), " ", json);
  return absl::StrCat(text, " ", Sum(text), "\n");
}

absl::StatusOr<DecisionRecord> ReadDecisions(absl::string_view bytes, size_t* good_bytes) {
  DecisionRecord record;
  *good_bytes = 0;
  int number = 0;
  while (*good_bytes < bytes.size()) {
    const size_t end = bytes.find('\n', *good_bytes);
    if (end == absl::string_view::npos) break;  // cut short
    ++number;
    const absl::string_view line = bytes.substr(*good_bytes, end - *good_bytes);
    const std::optional<ParsedLine> parsed = ParseLine(line);
    if (!parsed.has_value()) {
      return absl::DataLossError(
          absl::StrCat("line ", number,
                       " is damaged: its checksum or form is wrong; restore the file, or "
                       "remove it to lay the replica out anew"));
    }
    record.last_epoch = std::max(record.last_epoch, parsed->map.epoch());
    if (parsed->kind == DecisionKind::kDecide) {
      record.decided = parsed->map;
      record.abandoned.clear();
    } else {
      record.abandoned = std::string(line);
    }
    *good_bytes = end + 1;
  }
  return record;
}

std::unique_ptr<DecisionLog> OpenDecisionFile(std::string path, Executor* blocking) {
  return std::make_unique<DecisionFile>(std::move(path), blocking);
}

}  // namespace troupe
