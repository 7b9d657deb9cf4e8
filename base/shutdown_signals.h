// Waits for somebody to ask the program to stop: SIGINT or SIGTERM.
//
//   ShutdownSignals signals;       // first thing in main(), before any thread starts
//   ... start ...
//   signals.Wait();
//
// Thread model: one object a process, made before other threads, which inherit that the signals are
// blocked; Wait is called by one thread.
#ifndef TROUPE_BASE_SHUTDOWN_SIGNALS_H_
#define TROUPE_BASE_SHUTDOWN_SIGNALS_H_

#include <csignal>

namespace troupe {

class ShutdownSignals {
 public:
  ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Blocks until one of them arrives; its number.
  int Wait();
  // Or until the time is over: 0.
  int WaitFor(int milliseconds);

 private:
  sigset_t signals_;
};

}  // namespace troupe

#endif  // TROUPE_BASE_SHUTDOWN_SIGNALS_H_
