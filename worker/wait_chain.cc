#include "worker/wait_chain.h"

#include <algorithm>
#include <utility>

namespace troupe {
namespace {

constexpr absl::Duration kShortest = absl::Milliseconds(250);
constexpr absl::Duration kLongest = absl::Seconds(2);

}  // namespace

std::chrono::milliseconds PatienceFor(absl::Duration timeout) {
  return absl::ToChronoMilliseconds(std::clamp(timeout / 4, kShortest, kLongest));
}

WaitChain::WaitChain(int rank, int size, std::chrono::milliseconds patience,
                     std::function<bool(int peer)> ask)
    : rank_(rank), patience_(patience), ask_(std::move(ask)), waits_(size) {}

int WaitChain::Culprit(int peer) {
  const auto size = static_cast<int>(waits_.size());
  std::vector<bool> met(size, false);
  met[rank_] = true;
  int culprit = peer;
  while (!met[culprit]) {
    met[culprit] = true;
    const std::optional<int> next = Ask(culprit);
    if (!next.has_value() || *next < 0 || *next >= size) return culprit;
    culprit = *next;
  }
  return peer;
}

std::optional<int> WaitChain::Ask(int peer) {
  {
    const std::lock_guard lock(mutex_);
    waits_[peer].reset();
  }
  if (!ask_(peer)) return std::nullopt;
  std::unique_lock lock(mutex_);
  answered_.wait_for(lock, patience_, [&] { return waits_[peer].has_value() || given_up_; });
  return waits_[peer];
}

void WaitChain::OnAnswer(int peer, int whom) {
  const std::lock_guard lock(mutex_);
  waits_[peer] = whom;
  answered_.notify_all();
}

void WaitChain::GiveUp() {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
  answered_.notify_all();
}

}  // namespace troupe
