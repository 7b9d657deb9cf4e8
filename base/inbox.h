// A mailbox that a thread reads by hand: what stands in for an actor at the edge, where code may
// block (a gRPC handler's thread, a command line, a test).
//
//   std::shared_ptr<Inbox<JobEvent>> inbox = Inbox<JobEvent>::Create("client", /*capacity=*/256);
//   TROUPE_RETURN_IF_ERROR(jobs.Tell(SubmitJob{request, inbox->ref()}));
//   while (std::optional<JobEvent> event = inbox->Receive(absl::InfiniteDuration())) ...
//
// Thread-safe. The inbox is shared by its reader and by references to it. Its reader closes it (the
// destructor does not: senders would keep it from running), and whoever monitors it is told.

#ifndef TROUPE_BASE_INBOX_H_
#define TROUPE_BASE_INBOX_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/actor.h"
#include "base/monitor.h"

namespace troupe {

template <class Message>
class Inbox final : public MessageSink<Message>,
                    public std::enable_shared_from_this<Inbox<Message>> {
 public:
  using Lane = typename MessageSink<Message>::Lane;

  static std::shared_ptr<Inbox> Create(std::string name, size_t capacity) {
    return std::shared_ptr<Inbox>(new Inbox(std::move(name), capacity));
  }

  ActorRef<Message> ref() {
    return ActorRef<Message>(std::shared_ptr<MessageSink<Message>>(this->shared_from_this()));
  }

  // The next message, waited for as long as `timeout`. Null when none came in that time, or when
  // the inbox is closed and empty.
  std::optional<Message> Receive(absl::Duration timeout) {
    const auto ready = [this] { return closed_ || !messages_.empty(); };
    std::unique_lock lock(mutex_);
    if (timeout >= kForever) {
      changed_.wait(lock, ready);
    } else {
      changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), ready);
    }
    if (messages_.empty()) return std::nullopt;
    std::optional<Message> message(std::move(messages_.front()));
    messages_.pop_front();
    return message;
  }

  // Refuses what comes from now on; what is here can still be received. `reason` is told to who
  // monitors this. Later calls do nothing.
  void Close(const absl::Status& reason) {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    lifetime_->End(reason);
  }

  absl::Status Accept(Message&& message, Lane lane) override {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return absl::UnavailableError(absl::StrCat(lifetime_->name(), " is closed"));
      if (lane == Lane::kRequest && messages_.size() >= capacity_) {
        return absl::ResourceExhaustedError(absl::StrCat(
            lifetime_->name(), " is behind: ", capacity_, " messages wait to be read"));
      }
      messages_.push_back(std::move(message));
    }
    changed_.notify_one();
    return absl::OkStatus();
  }

  const std::shared_ptr<Lifetime>& lifetime() const override { return lifetime_; }

 private:
  // Longer waits would overflow the clock that a condition variable adds them to.
  static constexpr absl::Duration kForever = absl::Hours(24 * 36525);

  Inbox(std::string name, size_t capacity)
      : lifetime_(Lifetime::Create(std::move(name))), capacity_(capacity) {}

  const std::shared_ptr<Lifetime> lifetime_;
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Both below are guarded by mutex_.
  std::deque<Message> messages_;
  bool closed_ = false;
};

}  // namespace troupe

#endif  // TROUPE_BASE_INBOX_H_
