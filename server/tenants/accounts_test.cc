#include "server/tenants/accounts.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "absl/strings/str_format.h"
#include "base/retry_after.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tenants/key_admin.h"
#include "server/tenants/redis_quota.h"
#include "server/tenants/testing.h"

namespace reticle::server::tenants {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kNow = 1'800'000'000;
// A place is expected to be free at once.
constexpr auto kSoon = [] { return int64_t{0}; };

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// PostgreSQL in a folder of its own; not as root, which it refuses.
class Postgres {
 public:
  Postgres() : port_(FreePort()) {
    std::vector<std::string> as;
    if (geteuid() == 0) {
      const passwd* user = getpwnam("postgres");
      RETICLE_CHECK(user != nullptr);
      RETICLE_CHECK(chown(folder_.path().c_str(), user->pw_uid, user->pw_gid) == 0);
      as = {"setpriv",       "--reuid",     "postgres", "--regid", "postgres",
            "--init-groups", "--pdeathsig", "KILL",     "--"};
    }
    const std::string data = folder_.path() + "/data";
    const std::string bin = "/usr/lib/postgresql/15/bin/";
    std::vector<std::string> words = as;
    for (const char* word : {"initdb", "-U", "reticle", "-A", "trust", "-N", "-D"}) {
      words.push_back(word == std::string("initdb") ? bin + word : word);
    }
    words.push_back(data);
    Program(words).Wait();
    words = as;
    words.insert(words.end(),
                 {bin + "postgres", "-D", data, "-p", std::to_string(port_), "-c",
                  "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c",
                  "unix_socket_directories=" + folder_.path(), "-c", "log_min_messages=fatal"});
    server_ = std::make_unique<Program>(words);
    RETICLE_CHECK(Eventually([&] { return OpenDatabase(Address()).ok(); }));
  }
  // At once, without leaving shared memory behind.
  ~Postgres() { server_->Kill(SIGQUIT); }
  std::string Address() const {
    return absl::StrFormat("postgresql://reticle@127.0.0.1:%d/postgres", port_);
  }

 private:
  TemporaryFolder folder_;
  const int port_;
  std::unique_ptr<Program> server_;
};

// The same tests over both databases.
class AccountsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) postgres_ = std::make_unique<Postgres>();
    store_ = postgres_ != nullptr ? postgres_->Address() : folder_.path() + "/tenants.db";
    secret_ = folder_.path() + "/secret";
    hasher_ = *KeyHasher::Open(secret_);
  }
  std::unique_ptr<AccountStore> OpenStore() {
    auto database = OpenDatabase(store_);
    RETICLE_CHECK(database.ok());
    auto store = AccountStore::Open(*std::move(database), *hasher_);
    EXPECT_TRUE(store.ok()) << store.status();
    RETICLE_CHECK(store.ok());
    return *std::move(store);
  }
  std::unique_ptr<Accounts> OpenAccounts() {
    AccountsOptions options;
    options.store = store_;
    options.secret_file = secret_;
    options.unix_seconds = [this] { return now_.load(); };
    auto accounts = Accounts::Open(options, Clock::Monotonic(), nullptr);
    EXPECT_TRUE(accounts.ok()) << accounts.status();
    RETICLE_CHECK(accounts.ok());
    return *std::move(accounts);
  }
  static bool Good(Accounts& accounts, const std::string& key) {
    return accounts.Authenticate("Bearer " + key).ok();
  }

  TemporaryFolder folder_;
  std::unique_ptr<Postgres> postgres_;
  std::string store_, secret_;
  std::unique_ptr<KeyHasher> hasher_;
  std::atomic<int64_t> now_{kNow};
};

TEST_P(AccountsTest, TheLifeOfAnAccount) {
  // The store: applications.
  const auto store = OpenStore();
  const AccountStore::NewApplication form{"a@example.org", "A", "to test", kNow, 0};
  const auto applied = store->Apply(form);
  ASSERT_TRUE(applied.ok()) << applied.status();
  EXPECT_FALSE(applied->approved);
  EXPECT_TRUE(absl::IsFailedPrecondition(store->Claim(applied->claim, kNow).status()));
  const auto waiting = store->Applications("pending");
  ASSERT_THAT(*waiting, SizeIs(1));
  const auto organisation = store->Approve(waiting->front().id, TierKind::kFree, kNow);
  ASSERT_TRUE(organisation.ok()) << organisation.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(
      store->Approve(waiting->front().id, TierKind::kFree, kNow).status()));
  const auto key = store->Claim(applied->claim, kNow);
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_TRUE(absl::IsNotFound(store->Claim(applied->claim, kNow).status()));
  EXPECT_EQ(key->record.organisation, organisation->id);
  const auto refused = store->Apply(form);
  ASSERT_TRUE(refused.ok());
  ASSERT_TRUE(store->Refuse(store->Applications("pending")->front().id).ok());
  EXPECT_TRUE(absl::IsNotFound(store->Claim(refused->claim, kNow).status()));

  // Approval by itself, up to the day's cap.
  AccountStore::NewApplication by_itself = form;
  by_itself.auto_approve_per_day = 2;
  for (const bool expected : {true, true, false}) {
    EXPECT_EQ(store->Apply(by_itself)->approved, expected);
  }
  by_itself.now += 86'400;
  EXPECT_TRUE(store->Apply(by_itself)->approved);

  // A server that runs on it.
  const auto accounts = OpenAccounts();
  EXPECT_TRUE(Good(*accounts, key->key));
  EXPECT_FALSE(Good(*accounts, *NewApiKey()));
  EXPECT_EQ((*accounts->Authenticate("bearer " + key->key))->tier, "free");

  // What another process changes is known soon; what this one changes, at once.
  const auto second = store->CreateKey(organisation->id, "second", kNow + 100, kNow);
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(Eventually([&] { return Good(*accounts, second->key); }));
  ASSERT_TRUE(store->RevokeKey(key->record.id, kNow).ok());
  EXPECT_TRUE(Eventually([&] { return !Good(*accounts, key->key); }));
  ASSERT_TRUE(
      HandleKeyAdmin(*accounts, "revoke", absl::StrFormat(R"({"key":"%s"})", second->record.prefix))
          .ok());
  EXPECT_FALSE(Good(*accounts, second->key));

  // Expiry, rotation, limits.
  const auto third = store->CreateKey(organisation->id, "third", kNow + 100, kNow);
  EXPECT_TRUE(Eventually([&] { return Good(*accounts, third->key); }));
  const auto rotated = store->RotateKey(third->record.id, 50, kNow);
  ASSERT_TRUE(rotated.ok()) << rotated.status();
  EXPECT_TRUE(Eventually([&] { return Good(*accounts, rotated->key); }));
  EXPECT_TRUE(Good(*accounts, third->key));
  now_ = kNow + 50;
  EXPECT_TRUE(Eventually([&] { return !Good(*accounts, third->key); }));
  EXPECT_TRUE(Good(*accounts, rotated->key));
  now_ = kNow + 100;
  EXPECT_FALSE(Good(*accounts, rotated->key));
  now_ = kNow;
  ASSERT_TRUE(
      HandleKeyAdmin(*accounts, "limits",
                     absl::StrFormat(R"({"organisation":"%s","tier":"paid","requests_per_day":7})",
                                     organisation->id))
          .ok());
  const auto caller = accounts->Authenticate("Bearer " + rotated->key);
  ASSERT_TRUE(caller.ok());
  std::string headers;
  accounts->AppendHeaders(**caller, headers);
  EXPECT_THAT(headers, HasSubstr("x-ratelimit-limit-requests: 7\r\n"));
  EXPECT_FALSE(
      HandleKeyAdmin(*accounts, "limits",
                     absl::StrFormat(R"({"organisation":"%s","speed":7})", organisation->id))
          .ok());

  // Usage.
  const int64_t day = kNow / 86'400;
  const UsageRow row{"k", organisation->id, day, {1, 2, 3, 4}};
  ASSERT_TRUE(store->AddUsage({row, row}).ok());
  ASSERT_TRUE(store->AddUsage({row}).ok());
  const auto usage = store->Usage(organisation->id, day);
  ASSERT_THAT(*usage, SizeIs(1));
  EXPECT_EQ(usage->front().counts.requests, 3);
  EXPECT_EQ(usage->front().counts.output_tokens, 12);
  EXPECT_THAT(*store->Usage(organisation->id, day + 1), SizeIs(0));

  // What must not be in the store.
  EXPECT_FALSE(store->CreateOrganisation("x", "no address", TierKind::kFree, kNow).ok());
  EXPECT_FALSE(store->CreateOrganisation("", "a@b", TierKind::kFree, kNow).ok());
  EXPECT_FALSE(store->CreateKey("org_nobody", "x", 0, kNow).ok());
  EXPECT_FALSE(store->CreateKey(organisation->id, "x", kNow - 1, kNow).ok());
}

TEST_P(AccountsTest, ReservationsSettleAndUsageReachesTheStore) {
  const auto store = OpenStore();
  const auto organisation = store->CreateOrganisation("O", "o@example.org", TierKind::kPaid, kNow);
  ASSERT_TRUE(store->SetLimits(organisation->id, TierKind::kPaid, "tokens_per_day=1000;").ok());
  const auto key = store->CreateKey(organisation->id, "k", 0, kNow);
  const int64_t day = kNow / 86'400;
  const auto remaining = [](Accounts& accounts, const Caller& caller) {
    const std::string json = *accounts.UsageJson(caller);
    const size_t at = json.find("\"remaining\":", json.find("tokens_per_day"));
    return std::atoi(json.c_str() + at + 12);
  };
  {
    const auto accounts = OpenAccounts();
    const auto caller = *accounts->Authenticate("Bearer " + key->key);
    auto share = accounts->Reserve(caller, 700);
    ASSERT_TRUE(share.ok()) << share.status();
    EXPECT_FALSE(accounts->Reserve(caller, 700).ok());
    EXPECT_NEAR(remaining(*accounts, *caller), 300, 2);
    // A running request's usage reaches the store before it ends.
    (*share)->Progress(60, 20);
    EXPECT_TRUE(Eventually([&] {
      const auto rows = store->Usage(organisation->id, day);
      return rows->size() == 1 && rows->front().counts.output_tokens == 20;
    }));
    (*share)->Settle({.prompt_tokens = 60, .cached_tokens = 40, .output_tokens = 30});
    share->reset();
    EXPECT_NEAR(remaining(*accounts, *caller), 950, 2);
    // Not settled: the submission failed, and all comes back.
    accounts->Reserve(caller, 500)->reset();
    EXPECT_NEAR(remaining(*accounts, *caller), 950, 2);
    const auto too_large = accounts->Reserve(caller, 1001);
    EXPECT_TRUE(absl::IsInvalidArgument(too_large.status())) << too_large.status();
  }
  const auto rows = store->Usage(organisation->id, day);
  ASSERT_THAT(*rows, SizeIs(1));
  EXPECT_EQ(rows->front().counts.requests, 1);
  EXPECT_EQ(rows->front().counts.prompt_tokens, 20);
  EXPECT_EQ(rows->front().counts.cached_tokens, 40);
  EXPECT_EQ(rows->front().counts.output_tokens, 30);
  // The day's limits know of it after a restart.
  const auto again = OpenAccounts();
  const auto caller = *again->Authenticate("Bearer " + key->key);
  EXPECT_NEAR(remaining(*again, *caller), 950, 2);
}

TEST(AccountsClockTest, APlaceIsToldAtThePaceOfWhatRunsAndKept) {
  const TemporaryFolder folder;
  AccountsOptions options;
  options.store = folder.path() + "/t.db";
  ASSERT_TRUE(options.tiers.Set("paid.concurrent=2").ok());
  ManualClock clock(1);
  const auto accounts = *Accounts::Open(options, clock, nullptr);
  const std::string made =
      *HandleKeyAdmin(*accounts, "create", R"({"name":"A","email":"a@b","tier":"paid"})");
  const size_t at = made.find("rtk_", made.find("\"key\":"));
  const auto caller = *accounts->Authenticate("Bearer " + made.substr(at, made.find('"', at) - at));
  const auto fast = *accounts->Reserve(caller, 1100);
  const auto slow = *accounts->Reserve(caller, 1100);
  clock.AdvanceNanos(1'000'000'000);
  fast->Progress(100, 200);
  slow->Progress(100, 100);
  const auto wait_ns = [&]() -> int64_t {
    const auto share = accounts->Reserve(caller, 10);
    return share.ok() ? 0 : RetryAfterNs(share.status()).value_or(-1);
  };
  // The faster one has 800 of its tokens to go, at 200 a second.
  EXPECT_EQ(wait_ns(), 4'000'000'000);
  clock.AdvanceNanos(3'000'000'000);
  EXPECT_EQ(wait_ns(), 1'000'000'000);
  // Both have stopped since; the time told is kept all the same.
  clock.AdvanceNanos(1'000'000'000);
  EXPECT_EQ(wait_ns(), 0);
}

INSTANTIATE_TEST_SUITE_P(Databases, AccountsTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "PostgreSQL" : "SQLite"; });

TEST(AccountStoreTest, AStoreOfANewerProgramIsRefused) {
  const TemporaryFolder folder;
  const auto hasher = *KeyHasher::FromSecret(std::string(32, 's'));
  ASSERT_TRUE(AccountStore::Open(*OpenSqlite(folder.path() + "/t.db"), *hasher).ok());
  const auto database = *OpenSqlite(folder.path() + "/t.db");
  ASSERT_TRUE(database->Run("INSERT INTO schema_versions (version) VALUES (99)").ok());
  const auto newer = AccountStore::Open(*OpenSqlite(folder.path() + "/t.db"), *hasher);
  EXPECT_TRUE(absl::IsFailedPrecondition(newer.status())) << newer.status();
}

TEST(AccountStoreTest, AFailedMigrationLeavesNothingBehind) {
  const TemporaryFolder folder;
  const auto hasher = *KeyHasher::FromSecret(std::string(32, 's'));
  // Something is in the way of a later table.
  ASSERT_TRUE(
      (*OpenSqlite(folder.path() + "/t.db"))->Run("CREATE TABLE usage_days (x BIGINT)").ok());
  EXPECT_FALSE(AccountStore::Open(*OpenSqlite(folder.path() + "/t.db"), *hasher).ok());
  const auto database = *OpenSqlite(folder.path() + "/t.db");
  EXPECT_FALSE(database->Run("SELECT id FROM organisations").ok());
  ASSERT_TRUE(database->Run("DROP TABLE usage_days").ok());
  EXPECT_TRUE(AccountStore::Open(*OpenSqlite(folder.path() + "/t.db"), *hasher).ok());
}

TEST(TierTest, ServiceClasses) {
  const auto priority = [](TierKind tier, const char* asked) {
    return ChooseServiceClass(tier, asked)->priority;
  };
  // All of what is free stands behind all of what is paid.
  EXPECT_LT(priority(TierKind::kPaid, "priority") + 9, priority(TierKind::kPaid, ""));
  EXPECT_LT(priority(TierKind::kPaid, "auto") + 9, priority(TierKind::kPaid, "flex"));
  EXPECT_LT(priority(TierKind::kPaid, "flex") + 9, priority(TierKind::kFree, "priority"));
  EXPECT_LT(priority(TierKind::kFree, "default") + 9, priority(TierKind::kFree, "flex"));
  EXPECT_FALSE(ChooseServiceClass(TierKind::kPaid, "gold").ok());
  TierTable tiers;
  EXPECT_TRUE(tiers.Set("free.max_output=7").ok());
  EXPECT_EQ(tiers.of(TierKind::kFree).max_output, 7);
  for (const char* wrong : {"free", "free.x=1", "gold.max_output=1", "free.max_output=-1", ""}) {
    EXPECT_FALSE(tiers.Set(wrong).ok()) << wrong;
  }
}

// ---- Redis

class Redis {
 public:
  explicit Redis(int port)
      : server_({"redis-server", "--port", std::to_string(port), "--bind", "127.0.0.1", "--save",
                 "", "--appendonly", "no", "--loglevel", "warning"}) {}
  void Kill() { server_.Kill(); }

 private:
  Program server_;
};

class RedisTest : public ::testing::Test {
 protected:
  std::unique_ptr<RedisQuota> Open() {
    return *RedisQuota::Open(absl::StrFormat("redis://127.0.0.1:%d", port_),
                             std::make_unique<LocalQuota>(Clock::Monotonic()), Clock::Monotonic(),
                             probe_);
  }
  static QuotaRequest Ask(int64_t tokens, const TierLimits& limits) {
    QuotaRequest request;
    request.organisation = "org";
    request.limits = limits;
    request.tokens = tokens;
    return request;
  }
  const int port_ = FreePort();
  ServerProbe probe_;
};

TEST_F(RedisTest, ReplicasShareOneQuotaAndCountAloneWhileItIsAway) {
  auto redis = std::make_unique<Redis>(port_);
  ASSERT_TRUE(Eventually([&] { return !Open()->degraded(); }));
  const auto one = Open(), two = Open();
  TierLimits limits;
  limits.requests_per_day = 20;
  limits.tokens_per_minute = 6'000;
  limits.concurrent = 12;

  // From two replicas at once: together no more than the limits allow.
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (RedisQuota* quota : {one.get(), two.get()}) {
    threads.emplace_back([&, quota] {
      for (int i = 0; i < 30; ++i) {
        const std::string lease = absl::StrFormat("%p-%d", quota, i);
        granted += quota->Reserve(Ask(10, limits), lease, kSoon).granted ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted, 12);
  EXPECT_EQ(one->Reserve(Ask(1, limits), "x", kSoon).kind, QuotaKind::kConcurrent);

  // A true time to wait, and what is given back counts for both.
  limits.concurrent = 0;
  const QuotaDecision large = one->Reserve(Ask(5'900, limits), "large", kSoon);
  EXPECT_FALSE(large.granted);
  EXPECT_EQ(large.kind, QuotaKind::kTokensPerMinute);
  EXPECT_GT(large.retry_after_ns, 0);
  EXPECT_EQ(one->Reserve(Ask(6'001, limits), "never", kSoon).retry_after_ns, -1);
  const QuotaRequest most = Ask(5'800, limits);
  ASSERT_TRUE(two->Reserve(most, "most", kSoon).granted);
  EXPECT_FALSE(one->Reserve(most, "again", kSoon).granted);
  two->Settle(most, "most", 0, 5'800);
  EXPECT_TRUE(Eventually([&] {
    return one->Peek("org", limits)[1].remaining <= 8 && one->Reserve(most, "again", kSoon).granted;
  }));

  // A short wait, waited for.
  TierLimits fast;
  fast.tokens_per_minute = 60'000;
  const auto ask = [&](int64_t tokens, const char* lease) {
    QuotaRequest request = Ask(tokens, fast);
    request.organisation = "fast";
    return one->Reserve(request, lease, kSoon);
  };
  ASSERT_TRUE(ask(60'000, "all").granted);
  const QuotaDecision wait = ask(100, "more");
  ASSERT_FALSE(wait.granted);
  EXPECT_LE(wait.retry_after_ns, 100'000'000);
  std::this_thread::sleep_for(std::chrono::nanoseconds(wait.retry_after_ns));
  EXPECT_TRUE(ask(100, "more").granted);

  // A place is told and kept by whichever replica is asked, once.
  TierLimits single;
  single.concurrent = 1;
  const auto place = [&](RedisQuota& quota, const char* lease) {
    QuotaRequest request = Ask(1, single);
    request.organisation = "places";
    return quota.Reserve(request, lease, kSoon);
  };
  ASSERT_TRUE(place(*one, "first").granted);
  const QuotaDecision full = place(*one, "second");
  EXPECT_EQ(full.kind, QuotaKind::kConcurrent);
  const QuotaDecision still_full = place(*two, "second");
  EXPECT_LE(still_full.retry_after_ns, full.retry_after_ns);
  std::this_thread::sleep_for(std::chrono::nanoseconds(still_full.retry_after_ns));
  EXPECT_TRUE(place(*two, "second").granted);
  EXPECT_GT(place(*one, "third").retry_after_ns, full.retry_after_ns);

  // Away: limits hold within one replica, and the flag shows it.
  redis->Kill();
  EXPECT_TRUE(Eventually([&] { return two->degraded(); })) << "it is seen without a request";
  TierLimits few;
  few.requests_per_day = 3;
  int alone = 0;
  for (int i = 0; i < 10; ++i) {
    QuotaRequest request = Ask(1, few);
    request.organisation = "other";
    alone += one->Reserve(request, absl::StrFormat("a%d", i), kSoon).granted ? 1 : 0;
  }
  EXPECT_EQ(alone, 3);
  EXPECT_TRUE(one->degraded());
  redis = std::make_unique<Redis>(port_);
  EXPECT_TRUE(Eventually([&] { return !one->degraded() && !two->degraded(); }));
  EXPECT_TRUE(one->Reserve(Ask(1, limits), "back", kSoon).granted);
}

TEST_F(RedisTest, MalformedAddressesAreRefused) {
  for (const char* address :
       {"", "localhost:1", "redis://", "redis://h:x", "redis://h:70000", "redis://user@h:1"}) {
    EXPECT_FALSE(RedisQuota::Open(address, std::make_unique<LocalQuota>(Clock::Monotonic()),
                                  Clock::Monotonic(), probe_)
                     .ok())
        << address;
  }
}

}  // namespace
}  // namespace reticle::server::tenants
