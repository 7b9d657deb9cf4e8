#include "cache_service/rocksdb_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_util.h"
#include "cache_client/crc32c.h"
#include "cache_service/value_format.h"

namespace troupe {
namespace {

constexpr char kManifestFamily[] = "manifests";
constexpr char kPartFamily[] = "parts";
// Before a value of several parts is written, its manifest is put under this prefix, which no
// tenant namespace's length byte equals; what is there at start names parts that belong to nothing.
constexpr char kPendingPrefix = '\xff';
constexpr int kLockStripes = 64;

std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

std::string PendingKeyOf(const ValueId& id) { return kPendingPrefix + ManifestKeyOf(id); }

absl::Status WriteError(const rocksdb::Status& status) {
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the cache's disk is full: ", status.ToString(),
                     "; free space, or lower capacity_bytes and restart"));
  }
  return absl::InternalError(absl::StrCat("cannot write to the cache's disk: ", status.ToString()));
}

absl::Status OpenError(const std::string& path, const rocksdb::Status& status) {
  const std::string what =
      absl::StrCat("cannot open the cache's folder \"", path, "\": ", status.ToString());
  if (status.IsIOError() && status.ToString().find("lock") != std::string::npos) {
    return absl::UnavailableError(
        absl::StrCat(what, "; another process uses it: stop that one, or choose another data_dir"));
  }
  if (status.IsCorruption()) {
    return absl::DataLossError(absl::StrCat(
        what, "; it only holds cached values: move the folder away to start with an empty one"));
  }
  if (status.IsIOError()) {
    return absl::PermissionDeniedError(absl::StrCat(
        what, "; check permissions and the disk, or move the folder away to start anew"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; choose another data_dir, or move the folder away"));
}

absl::Status MakeFolder(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError("data_dir: found nothing, wanted the path of a folder");
  }
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return absl::OkStatus();
  const std::string what =
      absl::StrCat("cannot make the cache's folder \"", path, "\": ", error.message(),
                   "; choose another data_dir or change the permissions");
  if (error == std::errc::permission_denied || error == std::errc::read_only_file_system) {
    return absl::PermissionDeniedError(what);
  }
  return absl::InvalidArgumentError(what);
}

rocksdb::DBOptions DatabaseOptions(const RocksDbStore::Config& config) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_background_jobs = config.background_threads;
  options.max_open_files = 1024;
  // The log is dropped when both families have flushed what it covers; bounds it for the quiet one.
  options.max_total_wal_size = 4 * config.write_buffer_bytes;
  // A damaged record loses what it holds, and no more.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords;
  options.bytes_per_sync = options.wal_bytes_per_sync = 1 << 20;  // no bursts of dirty pages
  options.avoid_unnecessary_blocking_io = true;
  options.keep_log_file_num = 4;
  options.info_log_level = rocksdb::WARN_LEVEL;
  return options;
}

rocksdb::ColumnFamilyOptions FamilyOptions(const RocksDbStore::Config& config,
                                           const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = config.write_buffer_bytes;
  options.compression = rocksdb::kNoCompression;  // keys are hashes, payloads are floats
  return options;
}

rocksdb::ColumnFamilyOptions PartFamilyOptions(const RocksDbStore::Config& config,
                                               const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions options = FamilyOptions(config, cache);
  options.enable_blob_files = true;
  options.min_blob_size = 1024;
  options.blob_file_size = config.blob_file_bytes;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 0.5;
  options.blob_garbage_collection_force_threshold = 0.5;
  return options;
}

// Keeps one damaged blob from stopping all writes. Reclaiming space copies blobs; RocksDB takes one
// that fails its checksum there for the end of the database. Here it is one value's end: a read
// finds it, and deletes it. So reclaiming is switched off until the next start, and the error is
// dropped. A few may arrive before that takes effect; errors after those are about something else,
// and stand.
class ReclaimGuard final : public rocksdb::EventListener {
 public:
  void Attach(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* parts) {
    const std::lock_guard<std::mutex> lock(mutex_);
    db_ = db;
    parts_ = parts;
  }

  // Before the database closes, even where Attach was not called.
  void Detach() {
    std::thread switching_off;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      db_ = nullptr;
      switching_off = std::move(switching_off_);
    }
    if (switching_off.joinable()) switching_off.join();
  }

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    if (reason != rocksdb::BackgroundErrorReason::kCompaction || !error->IsCorruption()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (++dropped_ > kMostDropped) return;
    LOG(ERROR) << "the cache's disk holds damaged values; space is not reclaimed until a restart"
               << Field("error", error->ToString());
    *error = rocksdb::Status::OK();
    if (db_ == nullptr || switching_off_.joinable()) return;
    // On a thread of its own: callbacks may not call into the database.
    switching_off_ = std::thread([db = db_, parts = parts_] {
      db->SetOptions(parts, {{"enable_blob_garbage_collection", "false"}}).PermitUncheckedError();
    });
  }

 private:
  static constexpr int kMostDropped = 16;

  std::mutex mutex_;
  rocksdb::DB* db_ = nullptr;
  rocksdb::ColumnFamilyHandle* parts_ = nullptr;
  std::thread switching_off_;
  int dropped_ = 0;
};

}  // namespace

class RocksDbStore::Impl {
 public:
  explicit Impl(std::unique_ptr<AdmissionPolicy> policy) : ledger_(std::move(policy)) {}

  ~Impl() {
    reclaim_guard_->Detach();
    if (db_ == nullptr) return;
    for (rocksdb::ColumnFamilyHandle* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
    const rocksdb::Status status = db_->Close();
    if (!status.ok()) {
      LOG(WARNING) << "closing the cache's store" << Field("error", status.ToString());
    }
  }

  absl::Status Open(const Config& config) {
    TROUPE_RETURN_IF_ERROR(MakeFolder(config.data_dir));
    const auto cache = rocksdb::NewLRUCache(config.block_cache_bytes);
    const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
        {rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions()},
        {kManifestFamily, FamilyOptions(config, cache)},
        {kPartFamily, PartFamilyOptions(config, cache)}};
    rocksdb::DBOptions options = DatabaseOptions(config);
    options.listeners.push_back(reclaim_guard_);
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status =
        rocksdb::DB::Open(options, config.data_dir, families, &handles_, &db);
    if (!status.ok()) return OpenError(config.data_dir, status);
    db_.reset(db);
    manifests_ = handles_[1];
    parts_ = handles_[2];
    reclaim_guard_->Attach(db, parts_);
    return ScanManifests(config.data_dir);
  }

  // Does not change anything: DATA_LOSS leaves the damaged value in place.
  absl::StatusOr<StoredValue> Read(const ValueId& id) {
    TROUPE_ASSIGN_OR_RETURN(const ValueInfo info, ReadManifest(id));
    StoredValue value{.crc32c = info.crc32c};
    value.bytes.reserve(info.value_bytes);
    rocksdb::ReadOptions options;
    // DecodePart checks more than RocksDB would, and its checksum is several times as fast.
    options.verify_checksums = false;
    for (uint32_t part = 0; part < PartCountOf(info.value_bytes); ++part) {
      rocksdb::PinnableSlice record;
      const rocksdb::Status status = db_->Get(options, parts_, PartKeyOf(id, part), &record);
      if (!status.ok()) return absl::DataLossError(absl::StrCat("part: ", status.ToString()));
      TROUPE_ASSIGN_OR_RETURN(const std::string_view payload,
                              DecodePart(id, info, part, ToView(record)));
      value.bytes += payload;
    }
    if (Crc32c(value.bytes) != info.crc32c) {
      return absl::DataLossError("the parts do not make the value");
    }
    return value;
  }

  // NOT_FOUND, or DATA_LOSS for what cannot be read, for whatever reason: a cache does not tell a
  // failing disk from a damaged value.
  absl::StatusOr<ValueInfo> ReadManifest(const ValueId& id) {
    rocksdb::PinnableSlice record;
    const rocksdb::Status status =
        db_->Get(rocksdb::ReadOptions(), manifests_, ManifestKeyOf(id), &record);
    if (status.IsNotFound()) return absl::NotFoundError("no such value");
    if (!status.ok()) return absl::DataLossError(absl::StrCat("manifest: ", status.ToString()));
    return DecodeManifest(id, ToView(record));
  }

  // The caller holds the key's lock.
  absl::Status Write(const ValueId& id, const ValueInfo& info, std::string_view value) {
    const uint32_t part_count = PartCountOf(info.value_bytes);
    const std::string manifest = EncodeManifest(id, info);
    rocksdb::WriteBatch last;
    if (part_count > 1) {
      rocksdb::WriteBatch first;
      first.Put(manifests_, PendingKeyOf(id), manifest);
      TROUPE_RETURN_IF_ERROR(Commit(&first));
      last.Delete(manifests_, PendingKeyOf(id));
    }
    for (uint32_t part = 0; part + 1 < part_count; ++part) {
      rocksdb::WriteBatch batch(kMaxRecordBytes + 1024);
      batch.Put(parts_, PartKeyOf(id, part), EncodePart(id, info, part, value));
      TROUPE_RETURN_IF_ERROR(Commit(&batch));
    }
    last.Put(parts_, PartKeyOf(id, part_count - 1), EncodePart(id, info, part_count - 1, value));
    last.Put(manifests_, ManifestKeyOf(id), manifest);
    return Commit(&last);
  }

  // Deletes a value with this manifest, or, when that cannot be read, whatever lies under the id.
  // The caller holds the key's lock.
  absl::Status Remove(const ValueId& id, const absl::StatusOr<ValueInfo>& info) {
    rocksdb::WriteBatch batch;
    batch.Delete(manifests_, ManifestKeyOf(id));
    if (info.ok()) {
      DeleteParts(id, PartCountOf(info->value_bytes), &batch);
    } else {
      batch.DeleteRange(parts_, PartKeyOf(id, 0), PartKeyOf(id, UINT32_MAX));
    }
    TROUPE_RETURN_IF_ERROR(Commit(&batch));
    // A manifest that cannot be read does not say how much to give back: capacity stays short by
    // one value until the next start counts again.
    if (info.ok()) ledger_.Remove(StoredBytesOf(id, info->value_bytes));
    return absl::OkStatus();
  }

  std::mutex& LockOf(const ValueId& id) {
    return locks_[std::hash<std::string>()(id.block_key) % kLockStripes];
  }

  CapacityLedger& ledger() { return ledger_; }
  StoreCounters& counters() { return counters_; }

 private:
  absl::Status Commit(rocksdb::WriteBatch* batch) {
    const rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), batch);
    return status.ok() ? absl::OkStatus() : WriteError(status);
  }

  void DeleteParts(const ValueId& id, uint32_t part_count, rocksdb::WriteBatch* batch) {
    for (uint32_t part = 0; part < part_count; ++part) batch->Delete(parts_, PartKeyOf(id, part));
  }

  // Counts what is stored, and clears away what a dying process left half written or what no longer
  // reads.
  absl::Status ScanManifests(const std::string& path) {
    const std::unique_ptr<rocksdb::Iterator> at(
        db_->NewIterator(rocksdb::ReadOptions(), manifests_));
    rocksdb::WriteBatch cleanup;
    for (at->SeekToFirst(); at->Valid(); at->Next()) {
      const std::string_view key = ToView(at->key());
      const bool pending = key.starts_with(kPendingPrefix);
      const absl::StatusOr<ValueId> id = ParseManifestKey(key.substr(pending ? 1 : 0));
      if (id.ok()) {
        const auto info = DecodeManifest(*id, ToView(at->value()));
        if (info.ok() && !pending) {
          ledger_.AddExisting(StoredBytesOf(*id, info->value_bytes));
          continue;
        }
        if (info.ok()) {
          DeleteParts(*id, PartCountOf(info->value_bytes), &cleanup);
        } else {
          cleanup.DeleteRange(parts_, PartKeyOf(*id, 0), PartKeyOf(*id, UINT32_MAX));
        }
      }
      cleanup.Delete(manifests_, at->key());
    }
    if (!at->status().ok()) return OpenError(path, at->status());
    return cleanup.Count() == 0 ? absl::OkStatus() : Commit(&cleanup);
  }

  CapacityLedger ledger_;
  StoreCounters counters_;
  std::array<std::mutex, kLockStripes> locks_;  // writers of one key take turns
  const std::shared_ptr<ReclaimGuard> reclaim_guard_ = std::make_shared<ReclaimGuard>();
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  rocksdb::ColumnFamilyHandle* manifests_ = nullptr;
  rocksdb::ColumnFamilyHandle* parts_ = nullptr;
};

absl::StatusOr<std::unique_ptr<RocksDbStore>> RocksDbStore::Open(
    const Config& config, std::unique_ptr<AdmissionPolicy> policy) {
  auto impl = std::make_unique<Impl>(std::move(policy));
  TROUPE_RETURN_IF_ERROR(impl->Open(config));
  return std::unique_ptr<RocksDbStore>(new RocksDbStore(std::move(impl)));
}

RocksDbStore::RocksDbStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RocksDbStore::~RocksDbStore() = default;

absl::StatusOr<StoredValue> RocksDbStore::Get(const ValueId& id) {
  absl::StatusOr<StoredValue> result = impl_->Read(id);
  if (result.status().code() == absl::StatusCode::kDataLoss) {
    // Again, under the lock: a delete and a new put may have come between the reads of two parts.
    const std::lock_guard<std::mutex> lock(impl_->LockOf(id));
    result = impl_->Read(id);
    if (result.status().code() == absl::StatusCode::kDataLoss) {
      LOG(WARNING) << "cached value failed its check" << Field("error", result.status().message());
      const absl::Status removed = impl_->Remove(id, impl_->ReadManifest(id));
      if (!removed.ok()) LOG(WARNING) << "deleting it" << Field("error", removed.message());
    }
  }
  impl_->counters().CountGet(result);
  return result;
}

absl::StatusOr<Store::PutOutcome> RocksDbStore::Put(const ValueId& id, std::string_view bytes,
                                                    uint32_t crc32c) {
  const auto put = [&]() -> absl::StatusOr<PutOutcome> {
    const ValueInfo info = {.value_bytes = bytes.size(), .crc32c = crc32c};
    const std::lock_guard<std::mutex> lock(impl_->LockOf(id));
    const absl::StatusOr<ValueInfo> found = impl_->ReadManifest(id);
    if (found.ok()) return PutOutcome::kExisting;
    if (!absl::IsNotFound(found.status())) TROUPE_RETURN_IF_ERROR(impl_->Remove(id, found));
    TROUPE_ASSIGN_OR_RETURN(auto reservation,
                            impl_->ledger().Reserve(id, StoredBytesOf(id, bytes.size())));
    TROUPE_RETURN_IF_ERROR(impl_->Write(id, info, bytes));
    reservation.Commit();
    return PutOutcome::kStored;
  };
  absl::StatusOr<PutOutcome> result = put();
  impl_->counters().CountPut(result);
  return result;
}

bool RocksDbStore::Contains(const ValueId& id) { return impl_->ReadManifest(id).ok(); }

absl::Status RocksDbStore::Delete(const ValueId& id) {
  const std::lock_guard<std::mutex> lock(impl_->LockOf(id));
  const absl::StatusOr<ValueInfo> info = impl_->ReadManifest(id);
  if (absl::IsNotFound(info.status())) return absl::OkStatus();
  return impl_->Remove(id, info);
}

StoreStats RocksDbStore::stats() const {
  const StoreUsage usage = impl_->ledger().usage();
  StoreStats stats{impl_->ledger().capacity_bytes(), usage.used_bytes, usage.values};
  impl_->counters().AddTo(&stats);
  return stats;
}

}  // namespace troupe
