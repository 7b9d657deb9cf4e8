// A meeting of threads, for tests: one LocalMeetingPlace, a LocalMeeting a member.
//
// Thread model: thread-safe. Ownership: members share the place.
#ifndef TROUPE_WORKER_TESTING_LOCAL_MEETING_H_
#define TROUPE_WORKER_TESTING_LOCAL_MEETING_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "worker/meeting.h"

namespace troupe::testing {

struct LocalMeetingPlace {
  explicit LocalMeetingPlace(int members) : size(members) {}

  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::map<int, std::map<int, std::string>> rounds;  // [round][rank]; guarded by mutex
};

class LocalMeeting final : public Meeting {
 public:
  LocalMeeting(std::shared_ptr<LocalMeetingPlace> place, int rank)
      : place_(std::move(place)), rank_(rank) {}

  absl::StatusOr<std::vector<std::string>> Exchange(std::string mine) override {
    std::unique_lock lock(place_->mutex);
    std::map<int, std::string>& handed_in = place_->rounds[round_++];
    handed_in[rank_] = std::move(mine);
    place_->changed.notify_all();
    place_->changed.wait(lock, [&] { return static_cast<int>(handed_in.size()) == place_->size; });
    std::vector<std::string> all;
    all.reserve(handed_in.size());
    for (const auto& [rank, text] : handed_in) all.push_back(text);
    return all;
  }

 private:
  const std::shared_ptr<LocalMeetingPlace> place_;
  const int rank_;
  int round_ = 0;
};

}  // namespace troupe::testing

#endif  // TROUPE_WORKER_TESTING_LOCAL_MEETING_H_
