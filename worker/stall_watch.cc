#include "worker/stall_watch.h"

#include <chrono>
#include <utility>

namespace troupe {
namespace {

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

StallWatch::StallWatch(absl::Duration limit, std::function<void(int peer)> on_stall)
    : limit_(limit), on_stall_(std::move(on_stall)), thread_([this] { Watch(); }) {}

StallWatch::~StallWatch() { Stop(); }

void StallWatch::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StallWatch::Begin() {
  WaitFor(-1);
  begun_ns_.store(NowNs(), std::memory_order_release);
}

void StallWatch::Watch() {
  const int64_t limit_ns = absl::ToInt64Nanoseconds(limit_);
  std::unique_lock lock(mutex_);
  while (!stop_) {
    stop_changed_.wait_for(lock, std::chrono::nanoseconds(limit_ns / 4));
    const int64_t begun_ns = begun_ns_.load(std::memory_order_acquire);
    if (stop_ || begun_ns == 0 || NowNs() - begun_ns < limit_ns) continue;
    lock.unlock();
    on_stall_(peer_.load(std::memory_order_relaxed));
    return;
  }
}

}  // namespace troupe
