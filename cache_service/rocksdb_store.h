// A Store on disk: RocksDB, with payloads in its blob files.
//
// Two column families. "manifests" holds one small record a value, behind bloom filters and in the
// block cache: Contains and the scan at start read only that. "parts" holds the payloads as blobs.
//
// Durability: writes go through the write-ahead log and are not synced one by one. A value whose
// Put has returned survives the death of the process; the death of the machine may lose the last
// moments. Either way a value is whole or absent: its manifest is written last, the log is replayed
// in order up to the first damage, and every record is checked on each read.
//
// Thread model: thread-safe, blocking. Writers of one key take turns; readers never wait for
// writers. Ownership: owns the folder, which at most one process opens. Closes in the destructor,
// with no call under way.

#ifndef TROUPE_CACHE_SERVICE_ROCKSDB_STORE_H_
#define TROUPE_CACHE_SERVICE_ROCKSDB_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cache_service/admission.h"
#include "cache_service/store.h"

namespace troupe {

class RocksDbStore final : public Store {
 public:
  struct Config {
    std::string data_dir;                    // made if it is not there
    uint64_t block_cache_bytes = 64 << 20;   // manifests, and where blobs lie
    uint64_t write_buffer_bytes = 64 << 20;  // of each column family
    uint64_t blob_file_bytes = 256 << 20;    // space is reclaimed in files of this size
    int background_threads = 2;              // flushes, compactions, reclaiming
  };

  // UNAVAILABLE: another process has the folder. DATA_LOSS: what is there cannot be opened.
  // PERMISSION_DENIED, INVALID_ARGUMENT: the path is not usable. Each says what to do.
  static absl::StatusOr<std::unique_ptr<RocksDbStore>> Open(
      const Config& config, std::unique_ptr<AdmissionPolicy> policy);

  ~RocksDbStore() override;
  RocksDbStore(const RocksDbStore&) = delete;
  RocksDbStore& operator=(const RocksDbStore&) = delete;

  absl::StatusOr<StoredValue> Get(const ValueId& id) override;
  absl::StatusOr<PutOutcome> Put(const ValueId& id, std::string_view bytes,
                                 uint32_t crc32c) override;
  bool Contains(const ValueId& id) override;
  absl::Status Delete(const ValueId& id) override;
  StoreStats stats() const override;

 private:
  class Impl;

  explicit RocksDbStore(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace troupe

#endif  // TROUPE_CACHE_SERVICE_ROCKSDB_STORE_H_
