// Times operations on a device at the shapes of Qwen3-30B-A3B, through Ops alone.
//
//   kernels_device_bench [cuda]     the device's name, as MakeOps takes it
//   kernels_device_bench own        the first GPU without cuBLASLt
//   kernels_device_bench cuda rows  only what has "rows" in its name, for a profiler
//
// Prints, for each shape, microseconds a call, the bytes that it must move, the rate, its share of
// the rate at which this device copies, and TFLOP/s. What is timed are graphs of many calls, which
// take turns among data that no cache holds.
#include "kernels/device_bench.h"

int main(int argc, char** argv) {
  troupe::Bench bench(argc > 1 ? argv[1] : "cuda", argc > 2 ? argv[2] : "");
  troupe::BenchRows(bench);
  troupe::BenchProducts(bench);
  troupe::BenchAttention(bench);
  troupe::BenchNsa(bench);
  return 0;
}
