// Ctrl-C while a command runs: the first cancels what is under way, one with nothing under way, or
// a second one for the same thing, ends the program.
//
// Thread model: made first thing, before other threads; one object a process. Watches on a thread
// of its own.
#ifndef TROUPE_CLI_INTERRUPTS_H_
#define TROUPE_CLI_INTERRUPTS_H_

#include <mutex>
#include <thread>

#include "cli/generate_client.h"

namespace troupe {

class Interrupts {
 public:
  Interrupts();
  // Ends the watching thread.
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // What the next interrupt cancels; null: the program.
  void SetTarget(CallCanceller* canceller);

 private:
  void Watch();

  std::mutex mutex_;
  CallCanceller* target_ = nullptr;  // guarded by mutex_
  std::thread watcher_;
};

}  // namespace troupe

#endif  // TROUPE_CLI_INTERRUPTS_H_
