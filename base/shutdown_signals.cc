#include "base/shutdown_signals.h"

#include <pthread.h>

#include "base/check.h"

namespace troupe {

ShutdownSignals::ShutdownSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGTERM);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals_, nullptr), 0);
}

int ShutdownSignals::Wait() {
  int signal = 0;
  CHECK_EQ(sigwait(&signals_, &signal), 0);
  return signal;
}

int ShutdownSignals::WaitFor(int milliseconds) {
  const timespec limit = {.tv_sec = milliseconds / 1000,
                          .tv_nsec = int64_t{milliseconds % 1000} * 1'000'000};
  const int signal = sigtimedwait(&signals_, nullptr, &limit);
  return signal > 0 ? signal : 0;
}

}  // namespace troupe
