// "Did you mean": the known name that a mistyped one was probably meant to be. Pure function.
#ifndef TROUPE_CONFIG_NEAREST_NAME_H_
#define TROUPE_CONFIG_NEAREST_NAME_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace troupe {

// The name with the fewest single-character edits from `typed`; null where even that one is far
// off. The pointer is into `known`.
const std::string* NearestName(absl::string_view typed, const std::vector<std::string>& known);

}  // namespace troupe

#endif  // TROUPE_CONFIG_NEAREST_NAME_H_
