// What the tests of operations (kernels/ops_test_table.h) stand on: backends and their memory,
// batches of sequences and the ways to cut them into steps, random inputs, and pages with poison
// around what may be read.
//
// Thread model: for one test thread. Ownership: a TestDevice owns its Ops and all that is put on
// it.
#ifndef TROUPE_KERNELS_OPS_TESTING_H_
#define TROUPE_KERNELS_OPS_TESTING_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/ops.h"

namespace troupe {

// SplitMix64 (Steele, Lea and Flood, 2014): most of a test's time goes into random inputs.
class TestRandom {
 public:
  using result_type = uint64_t;
  explicit TestRandom(uint64_t seed) : state_(seed) {}

  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t mixed = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }
  // Of mean zero and variance one, and nearly normal: the sum of four uniform numbers.
  float Normal() {
    const uint64_t bits = (*this)();
    uint64_t sum = 0;
    for (int shift = 0; shift < 64; shift += 16) sum += (bits >> shift) & 0xffff;
    return (static_cast<float>(sum) - 131070.0F) * (1.7320508F / 65536.0F);
  }

 private:
  uint64_t state_;
};

// TROUPE_TEST_SEED, or what the first call drew: inputs are new in each run, and one run can be
// repeated.
uint64_t TestSeed();

// A device under test.
struct Backend {
  std::string name;
  std::function<std::unique_ptr<Ops>()> make;
  // Over keys and values of bf16, attention rounds queries and weights to bf16 too.
  bool rounds_attention = false;
  // Products in bf16 round the numbers that codes stand for to bf16 too.
  bool rounds_codes = false;
};

Backend ReferenceBackend();
// Every backend that this machine runs, except the reference: the table's cases run on each.
// TROUPE_TEST_BACKENDS keeps those whose names contain it.
std::vector<Backend> CandidateBackends();
// Why there is no GPU among them; OK where there is one.
absl::Status CudaMissing();

// A dense f32 matrix of the host.
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;

  float* Row(int64_t row) { return values.data() + row * cols; }
  const float* Row(int64_t row) const { return values.data() + row * cols; }
  Matrix Pick(const std::vector<int>& rows) const;
};

class TestDevice {
 public:
  explicit TestDevice(const Backend& backend);

  Ops& ops() { return *ops_; }
  // By how much attention over keys and values of `dtype` may be off.
  float AttentionTolerance(DType dtype) const;
  bool rounds_codes() const { return rounds_codes_; }

  template <class T>
  T* Put(const std::vector<T>& host) {
    const auto bytes = static_cast<int64_t>(host.size() * sizeof(T));
    void* device = New(bytes);
    ops_->Upload(device, host.data(), bytes);
    return static_cast<T*>(device);
  }
  template <class T>
  std::vector<T> Get(const T* device, size_t count) {
    ops_->BeginStep();
    const auto* fetched = static_cast<const T*>(
        ops_->Fetch(const_cast<T*>(device), static_cast<int64_t>(count * sizeof(T))));
    ops_->Synchronize();
    CHECK_OK(ops_->status());
    return {fetched, fetched + count};
  }

  // Rows lie apart, with NaN between them: operations must not take rows for one array.
  Tensor Put(const Matrix& matrix, DType dtype = DType::kF32);
  // The same in the caller's memory, for Ops::Pack.
  Tensor Keep(const Matrix& matrix, DType dtype);
  Matrix Get(const Tensor& tensor);

 private:
  void* New(int64_t bytes);

  std::unique_ptr<Ops> ops_;
  bool rounds_attention_;
  bool rounds_codes_;
  std::vector<Buffer> buffers_;
  std::deque<std::vector<std::byte>> kept_;
};

// `count` new tokens of a sequence that has `start` already.
struct Sequence {
  int start = 0;
  int count = 1;
};

// New tokens [first, first + count) of sequences[row].
struct Span {
  int row = 0;
  int first = 0;
  int count = 0;
};
using Step = std::vector<Span>;

// Ways to run the same tokens, each sequence's in order.
std::vector<Step> InOneStep(const std::vector<Sequence>& sequences);
std::vector<Step> EachAlone(const std::vector<Sequence>& sequences);
std::vector<Step> TokenByToken(const std::vector<Sequence>& sequences);
std::vector<Step> RandomlyCut(const std::vector<Sequence>& sequences, TestRandom& random);

int TokensOf(const std::vector<Sequence>& sequences);

// Slots that the sequences of a batch have in block tables, in no particular order.
std::vector<uint32_t> RandomSlots(size_t count, TestRandom& random);

// A step as operations see it.
struct StepBatch {
  BatchView view;           // device pointers
  std::vector<int> tokens;  // of the step, as indices among all tokens of all sequences
  std::vector<int> rows;    // sequences of the step
};
StepBatch PutStep(TestDevice& device, const std::vector<Sequence>& sequences,
                  const std::vector<uint32_t>& slots, const Step& step);

Matrix RandomMatrix(int64_t rows, int64_t cols, TestRandom& random, float scale = 1);
std::vector<float> RandomVector(int64_t count, TestRandom& random, float mean = 0, float scale = 1);

// Pages of one group on the host: NaN wherever nothing was written.
class TestPages {
 public:
  struct Shape {
    int kv_heads = 1;
    int head_dim = 16;
    int entries_per_page = kBlockTokens;
    DType dtype = DType::kF32;
    int value_dim = 0;  // 0: head_dim

    int Dim(bool is_key) const { return is_key || value_dim == 0 ? head_dim : value_dim; }
  };

  // Block tables for `slots`, `blocks` each. Pages are given out in random order.
  TestPages(const Shape& shape, const std::vector<uint32_t>& slots, int blocks, TestRandom& random);

  // Fills entries [begin, end) of a slot at random.
  void FillEntries(uint32_t slot, int64_t begin, int64_t end, TestRandom& random);
  // The D elements of an entry; is_key: of the key stream.
  std::vector<float> Entry(uint32_t slot, int64_t entry, int head, bool is_key) const;
  void SetEntry(uint32_t slot, int64_t entry, int head, bool is_key,
                const std::vector<float>& values);
  // Block `block` of a slot is no more: its table entry leads nowhere.
  void Forget(uint32_t slot, int block);

  struct OnDevice {
    KvStream k;
    KvStream v;
    BlockTables tables;
    std::byte* pages;
  };
  OnDevice Put(TestDevice& device) const;
  // All elements of all pages as they are on the device; NaN reads as a number of its own.
  std::vector<float> Get(TestDevice& device, const OnDevice& on_device) const;
  // All bytes of all pages there.
  std::vector<float> GetBytes(TestDevice& device, const OnDevice& on_device) const;

 private:
  int64_t StreamBytes(bool is_key) const;
  int64_t ValueOffset() const { return StreamBytes(/*is_key=*/true) + kGapBytes; }
  // The key stream, or that of values, of pages that lie at `pages`.
  KvStream StreamAt(std::byte* pages, bool is_key) const;
  uint32_t PageOf(uint32_t slot, int64_t entry) const;

  // After each stream, as between the layers of a group.
  static constexpr int64_t kGapBytes = 64;

  Shape shape_;
  int64_t page_bytes_;
  int64_t stride_;
  std::vector<std::byte> pages_;
  std::vector<uint32_t> tables_;
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_OPS_TESTING_H_
