// Sends requests at a fixed concurrency and keeps every token's time.
//
// Thread model: Run blocks; it uses a thread a stream. Ownership: borrows nothing.
#ifndef TROUPE_CLI_LOAD_GENERATOR_H_
#define TROUPE_CLI_LOAD_GENERATOR_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "troupe/v1/inference.pb.h"

namespace troupe {

// One request as the client saw it. Times in microseconds since the run began.
struct RequestTiming {
  std::string group;  // of the stream that sent it
  int64_t sent_us = 0;
  std::vector<int64_t> token_us;  // arrival of each token
  int64_t done_us = 0;
  uint32_t prompt_tokens = 0;
  uint64_t heads_total = 0;
  uint64_t heads_skipped = 0;
  std::string error;  // empty: it went well
};

// A stream sends one request after another.
struct LoadStream {
  std::string group;   // name in the report
  std::string tenant;  // empty: the server's default
  int64_t start_us = 0;
  int requests = 1;                          // at most; fewer where the run's time is over
  std::vector<v1::GenerateRequest> prompts;  // taken in turn, from `first_prompt` on
  size_t first_prompt = 0;
};

struct LoadPlan {
  std::string target;
  std::vector<LoadStream> streams;
  int64_t duration_us = 0;  // no request is sent after it; 0: no limit
};

std::vector<RequestTiming> RunLoad(const LoadPlan& plan);

// The value below which a share `p` of `values` lies; 0 without values. Sorts them.
double Percentile(std::vector<double>& values, double p);

}  // namespace troupe

#endif  // TROUPE_CLI_LOAD_GENERATOR_H_
