// A gate for shutdown: work enters with a Pass, Close lets nobody else in and waits until all have
// left. It guards what work in flight still uses (a service's actors, a store's handle).
//
//   std::optional<Gate::Pass> pass = gate.Enter();
//   if (!pass) return absl::UnavailableError("shutting down");
//
// Thread-safe. The gate outlives every Pass.

#ifndef TROUPE_BASE_GATE_H_
#define TROUPE_BASE_GATE_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace troupe {

class Gate {
 public:
  // Proof that its holder is inside; leaves when destroyed.
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(gate_, other.gate_);
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }

   private:
    friend class Gate;
    explicit Pass(Gate* gate) : gate_(gate) {}

    Gate* gate_;
  };

  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  // CHECKs that nobody is inside.
  ~Gate();

  // Null once the gate is closed.
  [[nodiscard]] std::optional<Pass> Enter();

  // Closes without waiting; may be called again.
  void BeginClose();
  // Closes and blocks until all have left. The caller itself holds no Pass.
  void Close();

  bool closed() const;
  // How many are inside now.
  int64_t entrant_count() const;

 private:
  void Leave();

  mutable std::mutex mutex_;
  std::condition_variable all_left_;
  bool closed_ = false;        // Guarded by mutex_.
  int64_t entrant_count_ = 0;  // Guarded by mutex_.
};

}  // namespace troupe

#endif  // TROUPE_BASE_GATE_H_
