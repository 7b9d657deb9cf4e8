// Sections of operations that are the same, step after step, but for what lies in memory: a device
// may keep one when it has seen it and repeat it in one go, where launching its operations one by
// one would take longer than running them.
//
//     if (replays->Begin(key)) {
//       ops.Embed(...); ...          // as ever
//       replays->End();
//     }
//
// Thread model: as the Ops that made it, whose caller this is.
// Ownership: owns what it keeps; sections may name memory that outlives this object alone.
// Invariants: what a section calls, and with which parameters, follows from its key. A section
// stages, uploads and fetches nothing, and does not wait for the device.
#ifndef TROUPE_KERNELS_REPLAYS_H_
#define TROUPE_KERNELS_REPLAYS_H_

#include <compare>

namespace troupe {

struct ReplayKey {
  int kind = 0;     // of section, as the caller numbers them
  int tokens = 0;   // of the step
  int longest = 0;  // BatchView::longest

  auto operator<=>(const ReplayKey&) const = default;
};

// Keeps nothing: every section is run by the caller.
class Replays {
 public:
  virtual ~Replays() = default;
  // Whether anything is ever kept, so that keys are worth being made alike.
  virtual bool keeps() const { return false; }
  // True: the caller calls the section's operations, then End. False: what was kept runs, and the
  // caller does neither.
  virtual bool Begin(const ReplayKey& /*key*/) { return true; }
  virtual void End() {}
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_REPLAYS_H_
