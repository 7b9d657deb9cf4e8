// What has been decided about a replica's layout, on disk: one line for each change that begins and
// one for each that is decided. The last decided line is the truth about who holds what; a change
// that began and was not decided did not happen, and its epoch is never used again.
//
//     decide 7 {"epoch":"7","layout":{"tp":2,...},...} 9f86d081884c7d65
//
// The last word is the start of the SHA-256 of all before it. A line that a crash cut short is the
// last one and does not count; any other damage is an error, for guessing would risk two layouts.
#ifndef TROUPE_COORDINATOR_RESHARD_DECISION_LOG_H_
#define TROUPE_COORDINATOR_RESHARD_DECISION_LOG_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/executor.h"
#include "troupe/v1/shard.pb.h"

namespace troupe {

// What the log says in the end.
struct DecisionRecord {
  std::optional<v1::ShardMap> decided;  // the last
  uint64_t last_epoch = 0;              // begun or decided; new ones are larger
  std::string abandoned;                // the line of a change that began and was not decided
};

enum class DecisionKind { kBegin, kDecide };

// One line, with its end.
std::string DecisionLine(DecisionKind kind, const v1::ShardMap& map);

// Reads a log's bytes. `good_bytes`: how many of them whole lines take. DataLoss names the line.
absl::StatusOr<DecisionRecord> ReadDecisions(absl::string_view bytes, size_t* good_bytes);

// Thread model: thread-safe, does not block; callbacks come from any thread, in order.
class DecisionLog {
 public:
  virtual ~DecisionLog() = default;
  // First and once.
  virtual void Read(absl::AnyInvocable<void(absl::StatusOr<DecisionRecord>)> done) = 0;
  // `done` is told OK once the line would survive a crash, and an error only when it is certainly
  // not there: an implementation that cannot tell ends the process, and the next one reads.
  virtual void Append(DecisionKind kind, const v1::ShardMap& map,
                      absl::AnyInvocable<void(absl::Status)> done) = 0;
};

// A file, written and synced on `blocking`, an executor with one thread. Outlived by it.
std::unique_ptr<DecisionLog> OpenDecisionFile(std::string path, Executor* blocking);

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_RESHARD_DECISION_LOG_H_
