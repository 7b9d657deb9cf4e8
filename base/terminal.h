// What programs show on a terminal, and what they leave out where there is none.
//
// Thread model: as each function says.
#ifndef TROUPE_BASE_TERMINAL_H_
#define TROUPE_BASE_TERMINAL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace troupe {

bool IsTerminal(int fd);

// `text` dimmed where stdout is a terminal.
std::string Dim(std::string_view text);

// A progress bar on stderr where that is a terminal; null, so that nothing is shown, elsewhere. The
// function may be called from several threads, one at a time; the bar is gone when done == total.
using Progress = std::function<void(absl::string_view what, int64_t done, int64_t total)>;
Progress ProgressBar();

// 12345678 as "12.3 MB".
std::string HumanBytes(double bytes);

}  // namespace troupe

#endif  // TROUPE_BASE_TERMINAL_H_
