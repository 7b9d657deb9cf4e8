#include "config/nearest_name.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = std::exchange(row[0], static_cast<int>(i));
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({replaced, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row.back();
}

}  // namespace

const std::string* NearestName(absl::string_view typed, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  int best_distance = static_cast<int>(typed.size() / 2) + 1;  // farther than this helps nobody
  for (const std::string& candidate : known) {
    const int distance = EditDistance(typed, candidate);
    if (distance >= best_distance) continue;
    best = &candidate;
    best_distance = distance;
  }
  return best;
}

}  // namespace troupe
