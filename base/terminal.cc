#include "base/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace troupe {

bool IsTerminal(int fd) { return isatty(fd) == 1; }

std::string Dim(std::string_view text) {
  if (!IsTerminal(STDOUT_FILENO)) return std::string(text);
  return absl::StrCat("\033[2m", std::string(text), "\033[0m");
}

Progress ProgressBar() {
  if (!IsTerminal(STDERR_FILENO)) return nullptr;
  auto last = std::make_shared<int>(-1);
  return [last](absl::string_view what, int64_t done, int64_t total) {
    constexpr int kWidth = 30;
    const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
    const int filled = static_cast<int>(share * kWidth);
    if (done < total && filled == *last) return;
    *last = filled;
    if (done >= total) {
      std::cerr << "\r\033[K" << std::flush;
      return;
    }
    std::cerr << absl::StrFormat("\r%s [%s%s] %3.0f%% of %s", what, std::string(filled, '#'),
                                 std::string(kWidth - filled, '.'), share * 100,
                                 HumanBytes(static_cast<double>(total)))
              << std::flush;
  };
}

std::string HumanBytes(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 1000 && unit + 1 < std::size(units)) {
    bytes /= 1000;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

}  // namespace troupe
