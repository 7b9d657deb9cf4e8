#include "cache_service/rocksdb_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache_client/crc32c.h"
#include "cache_service/test_values.h"
#include "cache_service/value_format.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kPlenty = uint64_t{4} << 30;
constexpr char kWriterDirVariable[] = "TROUPE_STORE_TEST_WRITER_DIR";
constexpr int kAcknowledgementFd = 100;  // where the writer writes to
constexpr char kWriterFirstVariable[] = "TROUPE_STORE_TEST_WRITER_FIRST";

std::unique_ptr<RocksDbStore> OpenStore(const std::string& dir, uint64_t capacity = kPlenty) {
  // A small write buffer, so that tests reach the files and not only the log.
  auto store = RocksDbStore::Open({.data_dir = dir, .write_buffer_bytes = 2 << 20},
                                  MakeCapacityLimit(capacity));
  EXPECT_EQ(store.status(), absl::OkStatus());
  return *std::move(store);
}

absl::StatusOr<Store::PutOutcome> PutNumber(Store* store, uint64_t number) {
  const std::string value = TestValue(number);
  return store->Put(TestId(number), value, Crc32c(value));
}

// The database under a closed store, opened without the store's code.
class RawDatabase {
 public:
  explicit RawDatabase(const std::string& dir) {
    std::vector<rocksdb::ColumnFamilyDescriptor> families = {
        {"default", {}}, {"manifests", {}}, {"parts", {}}};
    rocksdb::DB* db = nullptr;
    const auto status = rocksdb::DB::Open({}, dir, families, &handles_, &db);
    EXPECT_TRUE(status.ok()) << status.ToString();
    db_.reset(db);
  }
  ~RawDatabase() {
    for (auto* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
  }

  std::string Get(int family, const std::string& key) {
    std::string value;
    EXPECT_TRUE(db_->Get({}, handles_[family], key, &value).ok());
    return value;
  }
  void Put(int family, const std::string& key, const std::string& value) {
    EXPECT_TRUE(db_->Put({}, handles_[family], key, value).ok());
  }
  void Delete(int family, const std::string& key) {
    EXPECT_TRUE(db_->Delete({}, handles_[family], key).ok());
  }
  size_t Count(int family) {
    const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator({}, handles_[family]));
    size_t count = 0;
    for (at->SeekToFirst(); at->Valid(); at->Next()) ++count;
    return count;
  }

  static constexpr int kManifests = 1;
  static constexpr int kParts = 2;

 private:
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

class RocksDbStoreTest : public ::testing::Test {
 protected:
  RocksDbStoreTest()
      : dir_(absl::StrCat(::testing::TempDir(), "rocksdb_store_test.", getpid(), ".",
                          ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(dir_);
  }
  ~RocksDbStoreTest() override { std::filesystem::remove_all(dir_); }

  const std::string dir_;
};

TEST_F(RocksDbStoreTest, ValuesSurviveReopening) {
  uint64_t used_bytes = 0;
  {
    auto store = OpenStore(dir_);
    for (uint64_t i = 0; i < 20; ++i) {
      EXPECT_EQ(PutNumber(store.get(), i).value(), Store::PutOutcome::kStored);
      EXPECT_EQ(store->Get(TestId(i))->bytes, TestValue(i));
      used_bytes += StoredBytesOf(TestId(i), TestValue(i).size());
    }
    EXPECT_EQ(store->stats().used_bytes, used_bytes);
  }
  for (int round = 0; round < 2; ++round) {
    auto store = OpenStore(dir_);
    for (uint64_t i = 0; i < 20; ++i) {
      EXPECT_TRUE(store->Contains(TestId(i)));
      const auto value = store->Get(TestId(i));
      EXPECT_EQ(value->bytes, TestValue(i));
      EXPECT_EQ(value->crc32c, Crc32c(TestValue(i)));
    }
    EXPECT_EQ(PutNumber(store.get(), 7).value(), Store::PutOutcome::kExisting);
    EXPECT_FALSE(store->Contains(TestId(20)));
    EXPECT_EQ(store->Get(TestId(20)).status().code(), absl::StatusCode::kNotFound);
    const StoreStats stats = store->stats();
    EXPECT_EQ(stats.used_bytes, used_bytes);
    EXPECT_EQ(stats.values, 20u);
    EXPECT_EQ(stats.hits, 20u);
    EXPECT_EQ(stats.misses, 1u);
    EXPECT_EQ(stats.existing, 1u);
  }
}

TEST_F(RocksDbStoreTest, CapacityIsKeptAndGivenBack) {
  const uint64_t stored_bytes = StoredBytesOf(TestId(0), 1000);
  auto store = OpenStore(dir_, 3 * stored_bytes);
  const std::string value(1000, 'v');
  const auto put = [&](int i) { return store->Put(TestId(i), value, Crc32c(value)); };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(put(i).ok());
  EXPECT_EQ(put(3).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(store->Contains(TestId(3)));
  EXPECT_TRUE(store->Delete(TestId(1)).ok());
  EXPECT_TRUE(store->Delete(TestId(1)).ok());
  EXPECT_TRUE(put(3).ok());
  EXPECT_EQ(store->stats().refused, 1u);
  EXPECT_EQ(store->stats().used_bytes, 3 * stored_bytes);
}

TEST_F(RocksDbStoreTest, DamagedRecordsAreMissesAndAreDeleted) {
  // Values 0 to 3 get a damage each; value 4 stays well.
  const std::string value = TestBytes(700 << 10, 1);
  const ValueInfo info = {.value_bytes = value.size(), .crc32c = Crc32c(value)};
  {
    auto store = OpenStore(dir_);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->Put(TestId(i), value, info.crc32c).ok());
  }
  {
    RawDatabase raw(dir_);
    std::string part = raw.Get(RawDatabase::kParts, PartKeyOf(TestId(0), 1));
    part[1000] ^= 1;
    raw.Put(RawDatabase::kParts, PartKeyOf(TestId(0), 1), part);
    raw.Delete(RawDatabase::kParts, PartKeyOf(TestId(1), 2));
    raw.Put(RawDatabase::kParts, PartKeyOf(TestId(2), 0),
            raw.Get(RawDatabase::kParts, PartKeyOf(TestId(4), 0)));
    raw.Put(RawDatabase::kManifests, ManifestKeyOf(TestId(3)), "nonsense");
  }
  {
    auto store = OpenStore(dir_);
    EXPECT_EQ(store->stats().values, 4u);  // the one without a manifest is cleared away at start
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(store->Get(TestId(i)).status().code(), absl::StatusCode::kDataLoss) << i;
      EXPECT_EQ(store->Get(TestId(i)).status().code(), absl::StatusCode::kNotFound) << i;
      EXPECT_FALSE(store->Contains(TestId(i)));
    }
    EXPECT_EQ(store->Get(TestId(3)).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(store->Get(TestId(4))->bytes, value);
    const StoreStats stats = store->stats();
    EXPECT_EQ(stats.damaged, 3u);
    EXPECT_EQ(stats.misses, 7u);
    EXPECT_EQ(stats.used_bytes, StoredBytesOf(TestId(4), value.size()));
    EXPECT_EQ(store->Put(TestId(0), value, info.crc32c).value(), Store::PutOutcome::kStored);
    EXPECT_EQ(store->Get(TestId(0))->bytes, value);
  }
  RawDatabase raw(dir_);
  EXPECT_EQ(raw.Count(RawDatabase::kManifests), 2u);
  EXPECT_EQ(raw.Count(RawDatabase::kParts), 2 * PartCountOf(value.size()));
}

TEST_F(RocksDbStoreTest, AManifestDamagedWhileOpenIsAMiss) {
  auto store = OpenStore(dir_);
  EXPECT_EQ(store->Put(TestId(0), "abc", Crc32c("abd")).value(), Store::PutOutcome::kStored);
  EXPECT_EQ(store->Get(TestId(0)).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store->Get(TestId(0)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->stats().used_bytes, 0u);
}

TEST_F(RocksDbStoreTest, BytesFlippedOnTheDiskNeverComeBack) {
  constexpr int kValues = 12;
  {
    auto store = OpenStore(dir_);
    for (int i = 0; i < kValues; ++i) ASSERT_TRUE(PutNumber(store.get(), i).ok());
  }
  { OpenStore(dir_); }  // replays the log into files
  int flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
    if (entry.path().extension() != ".blob") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    // Leaves the file's own header and footer alone: they decide whether the database opens at all.
    for (uint64_t at = 4096; at + 4096 < entry.file_size(); at += 300 << 10, ++flipped) {
      file.seekg(static_cast<std::streamoff>(at));
      const char byte = static_cast<char>(file.get() ^ 0x10);
      file.seekp(static_cast<std::streamoff>(at));
      file.put(byte);
    }
  }
  ASSERT_GT(flipped, 0);
  auto store = OpenStore(dir_);
  for (int i = 0; i < kValues; ++i) {
    const auto value = store->Get(TestId(i));
    if (value.ok()) {
      EXPECT_EQ(value->bytes, TestValue(i));
    }
  }
  EXPECT_GT(store->stats().damaged, 0u);
  EXPECT_EQ(store->stats().values, kValues - store->stats().damaged);
  // Reclaiming space meets the damaged bytes as well; writes must go on.
  for (int i = 0; i < 2 * kValues; ++i) {
    ASSERT_EQ(PutNumber(store.get(), i).status(), absl::OkStatus());
  }
  for (int i = 0; i < 2 * kValues; ++i) EXPECT_EQ(store->Get(TestId(i))->bytes, TestValue(i));
}

TEST_F(RocksDbStoreTest, WritersAndReadersOfOneKeyAgree) {
  auto store = OpenStore(dir_);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int round = 0; round < 40; ++round) {
        const uint64_t number = round % 3;
        if (t == 0) {
          EXPECT_TRUE(store->Delete(TestId(number)).ok());
        } else if (t == 1) {
          EXPECT_TRUE(PutNumber(store.get(), number).ok());
        }
        const auto value = store->Get(TestId(number));
        if (value.ok()) {
          EXPECT_EQ(value->bytes, TestValue(number));
        }
        EXPECT_NE(value.status().code(), absl::StatusCode::kDataLoss);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store->stats().damaged, 0u);
}

TEST_F(RocksDbStoreTest, OpenErrorsSayWhatToDo) {
  const auto open = [](const std::string& dir) {
    const absl::Status status =
        RocksDbStore::Open({.data_dir = dir}, MakeCapacityLimit(kPlenty)).status();
    return absl::StrCat(absl::StatusCodeToString(status.code()), " ", status.message());
  };
  auto store = OpenStore(dir_);
  EXPECT_THAT(open(dir_), HasSubstr("UNAVAILABLE"));
  EXPECT_THAT(open(dir_), HasSubstr("another process uses it"));
  EXPECT_THAT(open(dir_), HasSubstr(dir_));
  EXPECT_THAT(open(""), HasSubstr("data_dir"));
  EXPECT_THAT(open("/proc/nothing/here"), HasSubstr("choose another data_dir"));
  store.reset();
  std::ofstream(dir_ + "/CURRENT") << "MANIFEST-999999\n";
  EXPECT_THAT(open(dir_), HasSubstr("move the folder away"));
}

// Not a test by itself: the process that KilledWritersLeaveOnlyWholeValues kills. Puts values
// without end and writes the number of each, once it is acknowledged, to standard output.
TEST(StoreTestWriter, DISABLED_PutsUntilKilled) {
  const char* dir = std::getenv(kWriterDirVariable);
  ASSERT_NE(dir, nullptr) << "only another test starts this one";
  auto store = OpenStore(dir);
  for (uint64_t number = std::strtoull(std::getenv(kWriterFirstVariable), nullptr, 10);; ++number) {
    ASSERT_TRUE(PutNumber(store.get(), number).ok());
    ASSERT_EQ(write(kAcknowledgementFd, &number, sizeof(number)), ssize_t{sizeof(number)});
  }
}

// Starts a writer, lets it acknowledge `count` values from `first` on, kills it. Returns how many
// it acknowledged.
uint64_t RunWriterAndKill(const std::string& dir, uint64_t first, uint64_t count) {
  setenv(kWriterDirVariable, dir.c_str(), 1);
  setenv(kWriterFirstVariable, absl::StrCat(first).c_str(), 1);
  int pipe_ends[2];
  EXPECT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], kAcknowledgementFd);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    // A fresh image: the threads of this process's RocksDB do not exist in a forked one.
    execl("/proc/self/exe", "writer", "--gtest_filter=StoreTestWriter.*",
          "--gtest_also_run_disabled_tests", nullptr);
    _exit(127);
  }
  close(pipe_ends[1]);
  uint64_t acknowledged = 0;
  for (uint64_t number = 0; read(pipe_ends[0], &number, sizeof(number)) == sizeof(number);) {
    EXPECT_EQ(number, first + acknowledged);
    // After that, reads on: what it had acknowledged before it died counts.
    if (++acknowledged == count) kill(child, SIGKILL);
  }
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  return acknowledged;
}

TEST_F(RocksDbStoreTest, KilledWritersLeaveOnlyWholeValues) {
  constexpr uint64_t kSpacing = 1000000;
  std::set<uint64_t> stored;
  for (uint64_t round = 1; round <= 4; ++round) {
    const uint64_t first = round * kSpacing;
    const uint64_t acknowledged = RunWriterAndKill(dir_, first, 5 * round);
    ASSERT_GE(acknowledged, 5 * round);
    for (uint64_t i = 0; i < acknowledged; ++i) stored.insert(first + i);
    auto store = OpenStore(dir_);
    for (const uint64_t number : stored) {
      EXPECT_EQ(store->Get(TestId(number))->bytes, TestValue(number)) << number;
    }
    // The value that was being written may be there as well, but only whole.
    const auto last = store->Get(TestId(first + acknowledged));
    if (last.ok()) {
      EXPECT_EQ(last->bytes, TestValue(first + acknowledged));
      stored.insert(first + acknowledged);
    }
    EXPECT_EQ(store->stats().damaged, 0u);
    EXPECT_EQ(store->stats().values, stored.size());
  }
  size_t parts = 0;
  for (const uint64_t number : stored) parts += PartCountOf(TestValue(number).size());
  RawDatabase raw(dir_);
  EXPECT_EQ(raw.Count(RawDatabase::kManifests), stored.size());
  EXPECT_EQ(raw.Count(RawDatabase::kParts), parts);
}

}  // namespace
}  // namespace troupe
