#include "base/executor.h"

namespace troupe {
namespace {
thread_local const Executor* current_executor = nullptr;
}  // namespace

const Executor* Executor::Current() { return current_executor; }

Executor::CurrentScope::CurrentScope(const Executor* executor) : previous_(current_executor) {
  current_executor = executor;
}

Executor::CurrentScope::~CurrentScope() { current_executor = previous_; }

}  // namespace troupe
