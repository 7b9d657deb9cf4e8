#include "cli/interrupts.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>

#include "base/check.h"
#include "cli/commands.h"

namespace troupe {
namespace {

sigset_t Watched() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);  // from the destructor: stop watching
  return signals;
}

}  // namespace

Interrupts::Interrupts() {
  const sigset_t signals = Watched();
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
  watcher_ = std::thread([this] { Watch(); });
}

Interrupts::~Interrupts() {
  pthread_kill(watcher_.native_handle(), SIGUSR1);
  watcher_.join();
}

void Interrupts::SetTarget(CallCanceller* canceller) {
  std::lock_guard lock(mutex_);
  target_ = canceller;
}

void Interrupts::Watch() {
  const sigset_t signals = Watched();
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0 || signal == SIGUSR1) return;
    std::lock_guard lock(mutex_);
    if (target_ == nullptr || target_->cancelled()) _exit(kExitInterrupted);
    target_->Cancel();
  }
}

}  // namespace troupe
