// How products of few rows stream their weights (kernels/linear/weight_stream.cuh): pure functions
// of the shape, tested without a GPU.
#ifndef TROUPE_KERNELS_LINEAR_STREAM_CHOICE_H_
#define TROUPE_KERNELS_LINEAR_STREAM_CHOICE_H_

#include <algorithm>
#include <cstdint>

namespace troupe {

inline constexpr int kStreamRows = 16;                  // weight rows of a tile
inline constexpr int kStreamColumns = 8;                // rows of x in a column tile
inline constexpr int kStreamInputs = 256;               // of a stage
inline constexpr int kStreamUnit = 16;                  // inputs of one product
inline constexpr int kStreamInputsUnit = 64;            // what inputs are a multiple of
inline constexpr int kMostStreamRows = kStreamColumns;  // of x
inline constexpr int kStreamWarps = 8;                  // of a block
inline constexpr int kStreamThreads = 32 * kStreamWarps;
inline constexpr int kStreamTileBytes = kStreamRows * kStreamInputs * 2;  // of a stage
inline constexpr int kStreamBarrierBytes = 8;                             // of a stage
inline constexpr int64_t kStreamStageBytes = kStreamTileBytes + kStreamBarrierBytes;
// Rows of x of one stage lie 16 bytes further apart than they are long: 8 of them meet all banks.
inline constexpr int kStreamRowBytes = kStreamInputs * 2 + 16;
inline constexpr int kStreamAlignBytes = 1024;  // at most, before the first stage
// What a block may use. With as much as there is a step is no faster, but 2 % slower: nothing of
// the kernels that follow fits beside it.
inline constexpr int64_t kStreamSharedBytes = 160 << 10;
// Beyond these more would only wait: what is on its way fills the memory's pipes.
inline constexpr int kMostStreamStages = 24;

// A row of x in shared memory.
constexpr int64_t StreamXBytes(int64_t inputs) { return inputs * 2 + 16; }

struct StreamChoice {
  int blocks = 0;  // 0: the shape does not fit
  int warps = 0;   // of a block that stream; all of them bring x
  int stages = 0;  // of a warp
  int64_t shared_bytes = 0;
};

// As many warps as there are tiles, evenly over the multiprocessors; with what memory x and
// `other_bytes` leave.
inline StreamChoice ChooseStream(int64_t tiles, int64_t x_rows, int64_t inputs, int64_t other_bytes,
                                 int multiprocessors) {
  if (x_rows > kMostStreamRows || inputs % kStreamInputsUnit != 0 || tiles == 0) return {};
  const int64_t fixed_bytes = x_rows * StreamXBytes(inputs) + other_bytes + kStreamAlignBytes;
  const int64_t stages = (kStreamSharedBytes - fixed_bytes) / kStreamStageBytes;
  if (stages < 2) return {};
  StreamChoice choice;
  const int64_t warps =
      std::min<int64_t>(kStreamWarps, (tiles + multiprocessors - 1) / multiprocessors);
  // Two stages a warp at least: one is read while another comes.
  choice.warps = static_cast<int>(std::min<int64_t>(warps, stages / 2));
  choice.stages = static_cast<int>(std::min<int64_t>(kMostStreamStages, stages / choice.warps));
  choice.blocks = static_cast<int>(
      std::min<int64_t>(multiprocessors, (tiles + choice.warps - 1) / choice.warps));
  choice.shared_bytes = fixed_bytes + choice.warps * choice.stages * kStreamStageBytes;
  return choice;
}

// Whether a dense product of `tiles` tiles does best so: all of its weights come at once, and a row
// of x is not so long that a warp's products, one after another, take longer than the weights; or
// all weights come while the kernels before it run.
inline bool WantsStream(int64_t tiles, int64_t rows, int64_t inputs, int multiprocessors) {
  constexpr int64_t kMostInputs = 3072;
  constexpr int64_t kMostInputsOfOneTile = 4096;  // a block's, with the rows of x
  if (rows > kMostStreamRows) return false;
  if (tiles <= multiprocessors) return inputs <= kMostInputsOfOneTile;
  return inputs <= kMostInputs && tiles <= int64_t{kStreamWarps} * multiprocessors;
}

}  // namespace troupe

#endif  // TROUPE_KERNELS_LINEAR_STREAM_CHOICE_H_
