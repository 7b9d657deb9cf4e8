// The flags that say how a request is to be answered, for every command that makes one.
#ifndef TROUPE_CLI_REQUEST_FLAGS_H_
#define TROUPE_CLI_REQUEST_FLAGS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "config/program_config.h"
#include "troupe/v1/inference.pb.h"

namespace troupe {

struct RequestFlags {
  uint32_t max_tokens = 0;
  uint32_t max_steps = 0;
  float temperature = -1;  // -1: the model's
  int64_t seed = -1;       // -1: drawn
  std::string gate = "default";
  bool use_cache = true;

  void Declare(ProgramConfig* program);
  // InvalidArgument names the flag that Fill could not use.
  absl::Status Check() const;
  void Fill(v1::GenerateOptions* options) const;
};

}  // namespace troupe

#endif  // TROUPE_CLI_REQUEST_FLAGS_H_
