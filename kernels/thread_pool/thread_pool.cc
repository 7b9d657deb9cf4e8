#include "kernels/thread_pool/thread_pool.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "kernels/host_limits.h"

namespace troupe {
namespace {

constexpr int kPausesBetweenClockReads = 32;
constexpr int kPausesBeforeYield = 2000;  // tens of microseconds

int ThreadCount(const ThreadPool::Config& config) {
  return config.threads > 0 ? config.threads : AvailableCores();
}

}  // namespace

ThreadPool::ThreadPool(const Config& config)
    : spin_us_(config.spin_us), lanes_(ThreadCount(config)) {
  for (int worker = 1; worker < threads(); ++worker) {
    threads_.emplace_back([this, worker] { WorkerMain(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  epoch_.fetch_add(2);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::ParallelFor(int64_t count, int64_t grain, Body body) {
  if (count <= 0) return;
  if (threads() == 1 || count <= grain) {
    body(WorkRange{0, count, 0});
    return;
  }
  DCHECK(body_ == nullptr);  // one caller at a time
  const int64_t ranges = (count + grain - 1) / grain;
  const int64_t lane_count = threads();
  for (int64_t i = 0; i < lane_count; ++i) {
    lanes_[i].next.store(ranges * i / lane_count * grain, std::memory_order_relaxed);
    lanes_[i].end = std::min(ranges * (i + 1) / lane_count * grain, count);
  }
  grain_ = grain;
  body_ = &body;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  WorkOn(0);
  // All indices are taken. Whoever is inside may still be working on the last ones; whoever comes
  // later finds the loop closed.
  epoch_.fetch_add(1);
  for (Lane& lane : lanes_) {
    for (int spins = 0; lane.inside.load(); ++spins) {
      if (spins < kPausesBeforeYield) {
        _mm_pause();
      } else {
        std::this_thread::yield();  // its thread has lost its core to another process
      }
    }
  }
  body_ = nullptr;
}

void ThreadPool::WorkOn(int worker) {
  const int lane_count = threads();
  for (int i = 0; i < lane_count; ++i) {
    Lane& lane = lanes_[(worker + i) % lane_count];
    while (lane.next.load(std::memory_order_relaxed) < lane.end) {
      const int64_t begin = lane.next.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= lane.end) break;
      (*body_)(WorkRange{begin, std::min(begin + grain_, lane.end), worker});
    }
  }
}

void ThreadPool::WorkerMain(int worker) {
  Lane& lane = lanes_[worker];
  uint32_t epoch = 0;
  while (true) {
    epoch = AwaitOpen(epoch);
    if (stopping_.load()) return;
    // Announce, then look again: either this sees that the loop has closed, or the caller, who
    // closes and then looks, sees this thread.
    lane.inside.store(true);
    if (epoch_.load() == epoch) WorkOn(worker);
    lane.inside.store(false);
  }
}

// Waits for an open epoch other than `seen`, or for the end.
uint32_t ThreadPool::AwaitOpen(uint32_t seen_epoch) const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point sleep_time = Clock::now() + std::chrono::microseconds(spin_us_);
  bool spinning = true;
  while (true) {
    const uint32_t epoch = epoch_.load();
    if ((epoch != seen_epoch && epoch % 2 == 1) || stopping_.load(std::memory_order_relaxed)) {
      return epoch;
    }
    if (spinning) {
      for (int i = 0; i < kPausesBetweenClockReads && epoch_.load() == epoch; ++i) _mm_pause();
      spinning = Clock::now() < sleep_time;
    } else {
      epoch_.wait(epoch);
    }
  }
}

}  // namespace troupe
