// Where a job's events go: the reactor of a Generate call, or a test.
#ifndef TROUPE_COORDINATOR_EVENT_SINK_H_
#define TROUPE_COORDINATOR_EVENT_SINK_H_

#include "absl/status/status.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

// Thread model: called by one JobActor, one call at a time; must not block.
class EventSink {
 public:
  virtual ~EventSink() = default;

  // ResourceExhausted: the reader is too slow and its buffer is full; the job gives up.
  virtual absl::Status Send(v1::GenerateEvent event) = 0;

  // The last call. OK after Finished was sent.
  virtual void Close(absl::Status status) = 0;
};

}  // namespace troupe

#endif  // TROUPE_COORDINATOR_EVENT_SINK_H_
