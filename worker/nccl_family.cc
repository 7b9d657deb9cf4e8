#include "worker/nccl_family.h"

#include <dlfcn.h>
#include <signal.h>

#include <chrono>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace troupe {
namespace {

constexpr char kLibrary[] = "libnccl.so.2";
constexpr absl::Duration kPoll = absl::Milliseconds(50);
// After which an abort is taken not to return.
constexpr std::chrono::seconds kAbortLimit(30);

// Null, or the first symbol that is missing.
const char* Find(void* library, Nccl& nccl) {
  const char* missing = nullptr;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr && missing == nullptr) missing = name;
  };
  find("ncclGetUniqueId", nccl.GetUniqueId);
  find("ncclCommInitRankConfig", nccl.CommInitRankConfig);
  find("ncclCommSplit", nccl.CommSplit);
  find("ncclCommGetAsyncError", nccl.CommGetAsyncError);
  find("ncclCommAbort", nccl.CommAbort);
  find("ncclGetErrorString", nccl.GetErrorString);
  find("ncclGroupStart", nccl.GroupStart);
  find("ncclGroupEnd", nccl.GroupEnd);
  find("ncclSend", nccl.Send);
  find("ncclRecv", nccl.Recv);
  find("ncclAllGather", nccl.AllGather);
  return missing;
}

ncclConfig_t NonBlocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

absl::StatusOr<Nccl> Nccl::Load() {
  // Never closed: the library keeps threads and device state of its own.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(kLibrary, ": ", dlerror()));
  }
  Nccl nccl;
  if (const char* missing = Find(library, nccl)) {
    return absl::FailedPreconditionError(absl::StrCat(kLibrary, " has no ", missing));
  }
  return nccl;
}

NcclFamily::NcclFamily(const Nccl& library, cudaStream_t queue, const NcclOptions& how)
    : nccl(library), stream(queue), options(how), progress(queue), watcher_([this] { Watch(); }) {}

NcclFamily::~NcclFamily() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  watcher_.join();
  AbortAll();
}

ncclComm_t* NcclFamily::NewSlot() {
  const std::lock_guard lock(mutex_);
  return &comms_.emplace_back(nullptr);
}

ncclComm_t NcclFamily::Join(const ncclUniqueId& id) {
  ncclConfig_t config = NonBlocking();
  ncclComm_t* comm = NewSlot();
  const ncclResult_t result =
      nccl.CommInitRankConfig(comm, options.size, id, options.rank, &config);
  if (*comm == nullptr) {
    Fail(result);
    return nullptr;
  }
  Settle(*comm, result, options.connect_timeout);
  return latch.tripped() ? nullptr : *comm;
}

ncclComm_t NcclFamily::Split(ncclComm_t comm, int colour, int key) {
  ncclConfig_t config = NonBlocking();
  ncclComm_t* part = NewSlot();
  Run(comm, [&] { return nccl.CommSplit(comm, colour, key, part, &config); });
  return latch.tripped() ? nullptr : *part;
}

void NcclFamily::Settle(ncclComm_t comm, ncclResult_t result, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  // A call may answer success and go on beside the caller: ncclCommSplit does.
  if (result == ncclSuccess) result = ncclInProgress;
  while (result == ncclInProgress && !latch.tripped()) {
    {
      const std::lock_guard lock(mutex_);
      if (aborted_) return;
      if (nccl.CommGetAsyncError(comm, &result) != ncclSuccess) result = ncclInternalError;
    }
    if (result != ncclInProgress) break;
    if (absl::Now() > deadline) {
      return latch.Trip(absl::DeadlineExceededError(absl::StrCat(
          "some rank of ", options.size, " did not come within ", absl::FormatDuration(limit))));
    }
    std::this_thread::yield();
  }
  if (result != ncclSuccess && result != ncclInProgress) Fail(result);
}

void NcclFamily::Fail(ncclResult_t result) {
  latch.Trip(absl::UnavailableError(
      absl::StrCat("some rank of ", options.size, " is lost: ", nccl.GetErrorString(result))));
}

void NcclFamily::Watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    stopped_.wait_for(lock, absl::ToChronoMilliseconds(kPoll));
    lock.unlock();
    CheckErrors();
    CheckProgress();
    if (latch.tripped()) AbortAll();
    lock.lock();
  }
}

void NcclFamily::CheckErrors() {
  ncclResult_t found = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (aborted_) return;
    for (ncclComm_t comm : comms_) {
      if (comm == nullptr) continue;
      ncclResult_t state = ncclSuccess;
      if (nccl.CommGetAsyncError(comm, &state) != ncclSuccess) state = ncclInternalError;
      if (state != ncclSuccess && state != ncclInProgress) found = state;
    }
  }
  if (found != ncclSuccess) Fail(found);
}

void NcclFamily::CheckProgress() {
  if (progress.StandsFor() < options.timeout) return;
  latch.Trip(absl::DeadlineExceededError(absl::StrCat("some rank of ", options.size,
                                                      ": a step stood still for ",
                                                      absl::FormatDuration(options.timeout))));
}

void NcclFamily::AbortAll() {
  std::deque<ncclComm_t> comms;  // whose elements NCCL may still write
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    comms.swap(comms_);
  }
  if (comms.empty()) return;
  std::mutex done_mutex;
  std::condition_variable done_changed;
  bool done = false;
  std::thread guard([&] {
    std::unique_lock lock(done_mutex);
    if (done_changed.wait_for(lock, kAbortLimit, [&] { return done; })) return;
    LOG(ERROR) << "NCCL does not abort: this process ends";
    raise(SIGKILL);
  });
  // All at once: one frees memory of the device, which waits for a kernel of another that goes on
  // until that is aborted too.
  std::vector<std::thread> aborts;
  for (ncclComm_t comm : comms) {
    if (comm != nullptr) aborts.emplace_back([this, comm] { nccl.CommAbort(comm); });
  }
  for (std::thread& abort : aborts) abort.join();
  {
    const std::lock_guard lock(done_mutex);
    done = true;
  }
  done_changed.notify_all();
  guard.join();
}

}  // namespace troupe
