#include "worker/testing/queued_copies.h"

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

namespace troupe {
namespace {

using Copies = std::vector<SideCopy>;

// Long enough for the operations of a small step.
void Dawdle(const Copies& copies) {
  uintptr_t mixed = reinterpret_cast<uintptr_t>(copies.front().device) / 64 + copies.size();
  mixed *= 0x9e3779b97f4a7c15;
  std::this_thread::sleep_for(std::chrono::microseconds(mixed >> 53));  // up to 2 ms
}

}  // namespace

QueuedCopies::QueuedCopies(std::function<void(absl::AnyInvocable<void()>)> push)
    : push_(std::move(push)) {}

QueuedCopies::Event QueuedCopies::InOperations() {
  auto event = std::make_shared<absl::Notification>();
  push_([event] { event->Notify(); });
  return event;
}

QueuedCopies::Event QueuedCopies::In(WorkQueue& lane) {
  auto event = std::make_shared<absl::Notification>();
  lane.Push([event] { event->Notify(); });
  return event;
}

void QueuedCopies::Out(absl::Span<const SideCopy> span, Reuse reuse) {
  if (span.empty()) return;
  Copies copies(span.begin(), span.end());
  auto aside = std::make_shared<std::vector<std::vector<std::byte>>>();
  if (reuse == Reuse::kAtOnce) {
    push_([copies, aside] {
      for (const SideCopy& copy : copies) {
        aside->emplace_back(copy.device, copy.device + copy.bytes);
      }
    });
  }
  out_.Push([copies, aside, ready = InOperations()] {
    ready->WaitForNotification();
    Dawdle(copies);
    for (size_t i = 0; i < copies.size(); ++i) {
      const std::byte* from = aside->empty() ? copies[i].device : (*aside)[i].data();
      std::memcpy(copies[i].host, from, static_cast<size_t>(copies[i].bytes));
    }
  });
}

void QueuedCopies::In(absl::Span<const SideCopy> span) {
  if (span.empty()) return;
  in_.Push([copies = Copies(span.begin(), span.end()), ready = InOperations(), out = In(out_)] {
    ready->WaitForNotification();
    out->WaitForNotification();
    // Nobody may count on what is there until this is over.
    for (const SideCopy& copy : copies) {
      std::memset(copy.device, 0xee, static_cast<size_t>(copy.bytes));
    }
    Dawdle(copies);
    for (const SideCopy& copy : copies) {
      std::memcpy(copy.device, copy.host, static_cast<size_t>(copy.bytes));
    }
  });
}

bool QueuedCopies::WhenDone(absl::AnyInvocable<void()> done) {
  in_.Push([done = std::move(done), out = In(out_)]() mutable {
    out->WaitForNotification();
    done();
  });
  return true;
}

void QueuedCopies::Synchronize() {
  In(out_)->WaitForNotification();
  In(in_)->WaitForNotification();
}

}  // namespace troupe
