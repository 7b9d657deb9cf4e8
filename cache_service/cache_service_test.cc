// The service and the client together, over real connections; the store is memory, or one that a
// test controls.

#include "cache_service/cache_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/thread_executor.h"
#include "cache_client/cache_client.h"
#include "cache_client/cache_limits.h"
#include "cache_client/crc32c.h"
#include "cache_service/memory_store.h"
#include "cache_service/test_values.h"
#include "rpc/rpc_server.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Key = CacheClient::Key;

CacheClient::Key KeyOf(uint64_t number) {
  const ValueId id = TestId(number);
  return {.block_key = id.block_key, .tenant_namespace = id.tenant_namespace, .group = id.group};
}

// Holds every Get until the test lets it go on.
class GatedStore final : public Store {
 public:
  explicit GatedStore(Store* store) : store_(store) {}

  absl::StatusOr<StoredValue> Get(const ValueId& id) override {
    entered.set_value();
    leave.get_future().wait();
    return store_->Get(id);
  }
  absl::StatusOr<PutOutcome> Put(const ValueId& id, std::string_view bytes,
                                 uint32_t crc32c) override {
    return store_->Put(id, bytes, crc32c);
  }
  bool Contains(const ValueId& id) override { return store_->Contains(id); }
  absl::Status Delete(const ValueId& id) override { return store_->Delete(id); }
  StoreStats stats() const override { return store_->stats(); }

  std::promise<void> entered;
  std::promise<void> leave;

 private:
  Store* const store_;
};

struct GetAnswer {
  std::vector<std::optional<std::string>> values;
  absl::Status status;
};

class CacheServiceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kCapacity = 32 << 20;

  CacheServiceTest() : memory_(MakeCapacityLimit(kCapacity)) { Serve({}, &memory_); }
  ~CacheServiceTest() override { Stop(); }

  void Serve(const CacheService::Config& config, Store* store) {
    Stop();
    executor_.emplace(ThreadExecutor::Options{.name = "test-io", .thread_count = 2});
    service_.emplace(config, store, &*executor_);
    auto server = RpcServer::Start({}, {&*service_});
    ASSERT_EQ(server.status(), absl::OkStatus());
    server_ = *std::move(server);
    client_ = CacheClient::Connect(absl::StrCat("127.0.0.1:", server_->port()), {});
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()),
                                   grpc::InsecureChannelCredentials());
  }

  void Stop() {
    client_.reset();
    server_.reset();
    service_.reset();
    executor_.reset();
  }

  absl::StatusOr<std::vector<bool>> Stat(const std::vector<Key>& keys,
                                         const std::string& identity = std::string(32, 'm')) {
    std::promise<absl::StatusOr<std::vector<bool>>> done;
    client_->Stat(identity, keys, [&done](auto found) { done.set_value(std::move(found)); });
    return done.get_future().get();
  }

  GetAnswer Get(const std::vector<Key>& keys) {
    GetAnswer answer;
    std::promise<void> done;
    client_->Get(
        std::string(32, 'm'), keys,
        [&answer](size_t, absl::StatusOr<std::optional<std::string>> value) {
          answer.values.push_back(value.value());
        },
        [&](absl::Status status) {
          answer.status = std::move(status);
          done.set_value();
        });
    done.get_future().wait();
    return answer;
  }

  absl::StatusOr<CacheClient::PutCounts> Put(std::vector<CacheClient::Value> values) {
    std::promise<absl::StatusOr<CacheClient::PutCounts>> done;
    client_->Put(std::string(32, 'm'), std::move(values),
                 [&done](auto counts) { done.set_value(std::move(counts)); });
    return done.get_future().get();
  }

  // Sends chunks as they are; "OK", or code and message.
  std::string PutRaw(const std::vector<v1::PutChunk>& chunks) {
    grpc::ClientContext context;
    v1::PutReply reply;
    auto writer = v1::Cache::NewStub(channel_)->Put(&context, &reply);
    for (const v1::PutChunk& chunk : chunks) writer->Write(chunk);
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (status.ok()) return "OK";
    return absl::StrCat(status.error_code(), " ", status.error_message());
  }

  MemoryStore memory_;
  std::optional<ThreadExecutor> executor_;
  std::optional<CacheService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<CacheClient> client_;
  std::shared_ptr<grpc::Channel> channel_;
};

v1::PutChunk FirstChunk(const std::string& value) {
  v1::PutChunk chunk;
  const ValueId id = TestId(1);
  chunk.set_identity(id.identity);
  chunk.mutable_key()->set_block_key(id.block_key);
  chunk.mutable_key()->set_tenant_namespace(id.tenant_namespace);
  chunk.set_value_bytes(value.size());
  chunk.set_crc32c(Crc32c(value));
  chunk.set_data(value);
  return chunk;
}

TEST_F(CacheServiceTest, PutThenStatThenGet) {
  const std::string large = TestBytes(3 << 20, 1);
  const auto counts = Put({{KeyOf(1), "one"}, {KeyOf(2), large}, {KeyOf(1), "one"}});
  ASSERT_EQ(counts.status(), absl::OkStatus());
  EXPECT_EQ(counts->stored, 2);
  EXPECT_EQ(counts->existing, 1);
  EXPECT_THAT(Stat({KeyOf(2), KeyOf(3), KeyOf(1)}).value(), ElementsAre(true, false, true));
  const GetAnswer answer = Get({KeyOf(3), KeyOf(2), KeyOf(1), KeyOf(2)});
  EXPECT_EQ(answer.status, absl::OkStatus());
  EXPECT_THAT(answer.values, ElementsAre(std::nullopt, large, "one", large));
  EXPECT_THAT(Get({}).values, ElementsAre());
  EXPECT_EQ(Put({})->stored, 0);
}

TEST_F(CacheServiceTest, TenantsModelsAndGroupsAreApart) {
  ASSERT_TRUE(Put({{KeyOf(1), "one"}}).ok());
  Key other_tenant = KeyOf(1);
  other_tenant.tenant_namespace = "tenant2";
  Key other_group = KeyOf(1);
  other_group.group += 1;
  EXPECT_THAT(Stat({KeyOf(1), other_tenant, other_group}).value(), ElementsAre(true, false, false));
  EXPECT_THAT(Stat({KeyOf(1)}, std::string(32, 'n')).value(), ElementsAre(false));
}

TEST_F(CacheServiceTest, InfoCounts) {
  ASSERT_TRUE(Put({{KeyOf(1), "one"}, {KeyOf(1), "one"}}).ok());
  Get({KeyOf(1), KeyOf(2)});
  std::promise<CacheClient::Info> done;
  client_->GetInfo([&done](auto info) { done.set_value(info.value()); });
  const CacheClient::Info info = done.get_future().get();
  EXPECT_EQ(info.capacity_bytes, kCapacity);
  EXPECT_EQ(info.used_bytes, memory_.stats().used_bytes);
  EXPECT_EQ(info.values, 1u);
  EXPECT_EQ(info.hits, 1u);
  EXPECT_EQ(info.misses, 1u);
  EXPECT_EQ(info.stored, 1u);
  EXPECT_EQ(info.existing, 1u);
}

TEST_F(CacheServiceTest, MalformedKeysAreRefusedByName) {
  const auto error = [this](Key key, const std::string& identity = std::string(32, 'm')) {
    const absl::Status status = Stat({KeyOf(0), std::move(key)}, identity).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string{status.message()};
  };
  EXPECT_THAT(error({.block_key = "short"}), HasSubstr("keys[1].block_key: found 5 bytes"));
  Key key = KeyOf(1);
  EXPECT_THAT(error(key, "short"), HasSubstr("identity: found 5 bytes, wanted 32"));
  key.tenant_namespace = std::string(65, 't');
  EXPECT_THAT(error(key), HasSubstr("keys[1].tenant_namespace: found 65 bytes"));
  EXPECT_EQ(Get({key}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Put({{key, "x"}}).status().message()),
              HasSubstr("value 0: key.tenant_namespace"));
  const std::vector<Key> many(kCacheMaxKeysPerRequest + 1, KeyOf(1));
  EXPECT_THAT(std::string(Stat(many).status().message()), HasSubstr("keys: found 16385"));
  EXPECT_EQ(Stat(std::vector<Key>(kCacheMaxKeysPerRequest, KeyOf(1)))->size(),
            size_t{kCacheMaxKeysPerRequest});
}

TEST_F(CacheServiceTest, MalformedPutsAreRefusedByName) {
  const v1::PutChunk good = FirstChunk("value");
  EXPECT_EQ(PutRaw({good}), "OK");
  v1::PutChunk chunk = good;
  chunk.clear_key();
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("3 value 0: key: found none"));
  chunk = good;
  chunk.set_value_bytes(kCacheMaxValueBytes + 1);
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("3 value 0: value_bytes: found 67108865"));
  chunk = good;
  chunk.set_value_bytes(0);
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("value_bytes: found 0"));
  chunk = good;
  chunk.set_offset(2);
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("offset: found 2, wanted 0"));
  chunk = good;
  chunk.set_value_bytes(4);
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("data: found 5 bytes, wanted 1 to 4"));
  chunk = good;
  chunk.set_value_bytes(9);
  EXPECT_THAT(PutRaw({good, chunk}), HasSubstr("value 1: data: the stream ended after 5 of 9"));
  EXPECT_THAT(PutRaw({chunk, good}), HasSubstr("key: found one in the middle of a value"));
  chunk = good;
  chunk.mutable_key()->set_group(9);
  chunk.set_crc32c(1);
  EXPECT_THAT(PutRaw({chunk}), HasSubstr("15 value 0: crc32c"));
  EXPECT_EQ(memory_.stats().values, 1u);
}

TEST_F(CacheServiceTest, AFullStoreRefuses) {
  const std::string value = TestBytes(10 << 20, 1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Put({{KeyOf(i), value}}).ok());
  const absl::Status status = Put({{KeyOf(3), value}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the cache is full"));
  EXPECT_THAT(Get({KeyOf(2), KeyOf(3)}).values, ElementsAre(value, std::nullopt));
}

TEST_F(CacheServiceTest, TooMuchArrivingAtOnceIsRefusedAndGivenBack) {
  Serve({.max_arriving_bytes = 1000}, &memory_);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Put({{KeyOf(1), TestBytes(1001, 1)}}).status().code(),
              absl::StatusCode::kResourceExhausted);
    v1::PutChunk unfinished = FirstChunk("value");
    unfinished.set_value_bytes(900);
    EXPECT_THAT(PutRaw({unfinished}), HasSubstr("ended after 5 of 900"));
    EXPECT_TRUE(Put({{KeyOf(2), TestBytes(1000, 2)}}).ok());
  }
}

TEST_F(CacheServiceTest, ManyClientsAtOnce) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t round = 0; round < 8; ++round) {
        // Neighbours put the same values at the same time.
        const uint64_t number = t / 2 * 8 + round;
        EXPECT_TRUE(Put({{KeyOf(number), TestValue(number)}}).ok());
        EXPECT_THAT(Get({KeyOf(number), KeyOf(number + 100)}).values,
                    ElementsAre(TestValue(number), std::nullopt));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory_.stats().values, 24u);
  EXPECT_EQ(memory_.stats().stored, 24u);
  EXPECT_EQ(memory_.stats().existing, 24u);
}

TEST_F(CacheServiceTest, SlowDiskDoesNotHoldOtherCalls) {
  GatedStore gated(&memory_);
  ASSERT_TRUE(Put({{KeyOf(1), "one"}}).ok());
  Serve({}, &gated);
  auto slow = std::async(std::launch::async, [this] { return Get({KeyOf(1)}); });
  gated.entered.get_future().wait();
  EXPECT_THAT(Stat({KeyOf(1)}).value(), ElementsAre(true));
  EXPECT_TRUE(Put({{KeyOf(2), "two"}}).ok());
  gated.leave.set_value();
  EXPECT_THAT(slow.get().values, ElementsAre("one"));
}

TEST_F(CacheServiceTest, ACallCancelledWhileReadingEndsCleanly) {
  GatedStore gated(&memory_);
  ASSERT_TRUE(Put({{KeyOf(1), "one"}}).ok());
  Serve({}, &gated);
  auto get = std::async(std::launch::async, [this, &gated] {
    absl::Status status;
    auto own = CacheClient::Connect(absl::StrCat("127.0.0.1:", server_->port()), {});
    own->Get(
        std::string(32, 'm'), {KeyOf(1)}, [](size_t, const auto&) { ADD_FAILURE(); },
        [&status](absl::Status result) { status = std::move(result); });
    gated.entered.get_future().wait();
    own.reset();
    return status;
  });
  EXPECT_EQ(get.get().code(), absl::StatusCode::kCancelled);
  gated.leave.set_value();
  Stop();  // waits until the service's side has ended, too
}

}  // namespace
}  // namespace troupe
