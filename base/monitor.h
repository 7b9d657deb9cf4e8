// Death notices. Whatever lives and can end (an actor; at the edge, a stream or a connection) has a
// Lifetime; who depends on it asks for one notice of its end.
//
// Thread-safe. A notice is delivered exactly once, on the thread that ends the lifetime, or at once
// on the asking thread where it has ended already; no lock is held meanwhile. A callback is short
// and does not block: it tells an actor.

#ifndef TROUPE_BASE_MONITOR_H_
#define TROUPE_BASE_MONITOR_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

namespace troupe {

struct Down {
  std::string name;     // Of what ended.
  absl::Status reason;  // OK: it was stopped. Else: why it failed.
};

using DownCallback = absl::AnyInvocable<void(Down)>;

class Watch;

class Lifetime : public std::enable_shared_from_this<Lifetime> {
 public:
  static std::shared_ptr<Lifetime> Create(std::string name);
  Lifetime(const Lifetime&) = delete;
  Lifetime& operator=(const Lifetime&) = delete;
  // Ends it (Unavailable) where nobody has.
  ~Lifetime();

  const std::string& name() const { return name_; }
  bool ended() const;

  // Calls `callback` when this ends. The notice stands for as long as the Watch is kept.
  [[nodiscard]] Watch Monitor(DownCallback callback);

  // The first call ends it; later ones do nothing.
  void End(const absl::Status& reason);

 private:
  friend class Watch;
  explicit Lifetime(std::string name) : name_(std::move(name)) {}

  void Forget(uint64_t watch_id);

  const std::string name_;
  mutable std::mutex mutex_;
  // All below are guarded by mutex_. Watches are told in the order they were made.
  absl::btree_map<uint64_t, DownCallback> callbacks_;
  uint64_t last_watch_id_ = 0;
  std::optional<absl::Status> reason_;  // Set once ended.
};

// Keeps one notice standing; dropping it takes the notice back. A notice whose delivery has begun
// on another thread still arrives. Keep it beside the reference to what is watched.
class Watch {
 public:
  Watch() = default;
  Watch(Watch&& other) noexcept;
  Watch& operator=(Watch&& other) noexcept;
  ~Watch() { Cancel(); }

  void Cancel();

 private:
  friend class Lifetime;
  Watch(std::weak_ptr<Lifetime> target, uint64_t id) : target_(std::move(target)), id_(id) {}

  std::weak_ptr<Lifetime> target_;
  uint64_t id_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_MONITOR_H_
