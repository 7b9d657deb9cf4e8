// Temporary memory of one operation: taken piece by piece, given back all at once.
//
// Thread model: one thread takes; the pieces may be used by any.
// Ownership: pieces belong to the Scratch and die with the next Reset().
// Invariant: once an operation's needs have been seen, taking allocates nothing.
#ifndef TROUPE_KERNELS_SCRATCH_H_
#define TROUPE_KERNELS_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace troupe {

class Scratch {
 public:
  // `count` elements, uninitialised, aligned to 64 bytes.
  template <class T>
  T* Take(int64_t count) {
    return reinterpret_cast<T*>(TakeBytes(count * static_cast<int64_t>(sizeof(T))));
  }

  void Reset();

 private:
  struct Block {
    std::shared_ptr<std::byte> memory;
    int64_t bytes = 0;
  };

  std::byte* TakeBytes(int64_t bytes);

  std::vector<Block> blocks_;  // the last one is being filled
  int64_t used_bytes_ = 0;     // of the last block
};

}  // namespace troupe

#endif  // TROUPE_KERNELS_SCRATCH_H_
