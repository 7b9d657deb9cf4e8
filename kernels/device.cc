#include "kernels/device.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/cpu_isa.h"

namespace troupe {

absl::StatusOr<std::unique_ptr<Ops>> MakeOps(absl::string_view device,
                                             const DeviceOptions& options) {
  if (device == "cpu") {
    const absl::StatusOr<CpuIsa> isa = DetectCpuIsa();
    if (!isa.ok()) return isa.status();
    return MakeCpuOps({.threads = options.threads, .isa = *isa});
  }
  absl::string_view number = device;
  int index = 0;
  const bool cuda = absl::ConsumePrefix(&number, "cuda") &&
                    (number.empty() || (absl::ConsumePrefix(&number, ":") &&
                                        absl::SimpleAtoi(number, &index) && index >= 0));
  if (cuda) return MakeCudaOps({.device = index});
  return absl::InvalidArgumentError(
      absl::StrCat("device: found \"", device, "\", wanted cpu, cuda or cuda:N"));
}

}  // namespace troupe
