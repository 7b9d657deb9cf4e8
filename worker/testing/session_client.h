// A coordinator for tests: speaks troupe.v1.Worker to a worker, one blocking call at a time, and
// hands out pages without ever taking one back.
//
// Thread model: one thread. Ownership: owns its connection. Errors of the session come back from
// Receive; misuse is a CHECK.
#ifndef TROUPE_WORKER_TESTING_SESSION_CLIENT_H_
#define TROUPE_WORKER_TESTING_SESSION_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "troupe/v1/worker.pb.h"

namespace troupe {

class SessionClient {
 public:
  explicit SessionClient(const std::string& address);
  // Ends the session.
  ~SessionClient();
  SessionClient(const SessionClient&) = delete;
  SessionClient& operator=(const SessionClient&) = delete;

  // Sends Hello and waits for the answer, which page numbers then follow.
  absl::StatusOr<v1::WorkerInfo> Hello(uint64_t epoch);

  // An empty plan of the session's next step.
  v1::StepPlan NextPlan();
  void Send(const v1::StepPlan& plan);
  // The next result; else why the session ended.
  absl::StatusOr<v1::StepResult> Receive();
  absl::StatusOr<v1::StepResult> Run(const v1::StepPlan& plan);

  // Ends the session from this side; how the worker took it. Results that come are dropped.
  absl::Status Close();

  // ---- Parts of plans
  // Greedy, every head open.
  static v1::NewSequence MakeSequence(uint32_t slot, const std::vector<uint32_t>& tokens);
  // Adds the sequence and pages for its first `capacity` tokens.
  void Add(v1::StepPlan& plan, const v1::NewSequence& sequence, uint32_t capacity);
  static void AddRow(v1::StepPlan& plan, uint32_t slot, uint32_t start, uint32_t count);

  // Runs `tokens` in rows of at most `chunk` and then greedily, one plan ahead of the results,
  // until `stop` or `limit` tokens came. The slot is free afterwards.
  absl::StatusOr<std::vector<uint32_t>> Generate(const v1::NewSequence& sequence, uint32_t chunk,
                                                 uint32_t limit, uint32_t stop);

 private:
  struct Stream;

  const std::unique_ptr<Stream> stream_;
  v1::WorkerInfo info_;
  std::vector<uint32_t> next_page_;  // [groups]
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_WORKER_TESTING_SESSION_CLIENT_H_
