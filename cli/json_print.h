// Messages as JSON, for `-o json`. Pure.
#ifndef TROUPE_CLI_JSON_PRINT_H_
#define TROUPE_CLI_JSON_PRINT_H_

#include <string>

#include "google/protobuf/message.h"

namespace troupe {

// Field names as in the proto files; fields without presence are printed with their zero.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace troupe

#endif  // TROUPE_CLI_JSON_PRINT_H_
