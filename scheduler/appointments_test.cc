#include "scheduler/appointments.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "base/retry_after.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(AppointmentBookTest, TimesFollowEachOtherAtThePaceOfTheQueue) {
  AdmissionPace pace;
  for (int i = 1; i <= 20; ++i) pace.OnAdmitted(0, i * 10 * kMs);
  AppointmentBook book;
  const int64_t now_ns = 200 * kMs;
  EXPECT_EQ(book.Book(1, 1, pace, now_ns), 10 * kMs);
  EXPECT_EQ(book.Book(2, 1, pace, now_ns), 20 * kMs);
  EXPECT_EQ(book.Book(3, 1, pace, now_ns), 30 * kMs);
  // Whoever needs more places waits for more of them.
  EXPECT_EQ(book.Book(4, 8, pace, now_ns), 80 * kMs);
}

TEST(AppointmentBookTest, IsKeptOnceForItsTenantAndNotBeforeItsTime) {
  const AdmissionPace unknown;
  AppointmentBook book;
  EXPECT_EQ(book.Book(7, 1, unknown, 0), AppointmentBook::kUnknownWaitNs);
  EXPECT_FALSE(book.Redeem(7, AppointmentBook::kUnknownWaitNs - 1));
  EXPECT_FALSE(book.Redeem(8, AppointmentBook::kUnknownWaitNs));
  EXPECT_TRUE(book.Redeem(7, AppointmentBook::kUnknownWaitNs));
  EXPECT_FALSE(book.Redeem(7, AppointmentBook::kUnknownWaitNs));
  EXPECT_EQ(book.size(), 0u);
}

TEST(AppointmentBookTest, OneMayHaveSeveral) {
  const AdmissionPace unknown;
  AppointmentBook book;
  for (int i = 0; i < 3; ++i) book.Book(6, 1, unknown, i * kMs);
  int kept = 0;
  for (int i = 0; i < 5; ++i) kept += book.Redeem(6, 2'000 * kMs) ? 1 : 0;
  EXPECT_EQ(kept, 3);
  // Being turned away again, at the time of one, leaves the others.
  for (int i = 0; i < 2; ++i) book.Book(8, 1, unknown, 0);
  book.Book(8, 1, unknown, 1'500 * kMs);
  EXPECT_TRUE(book.Redeem(8, 1'500 * kMs));
  EXPECT_FALSE(book.Redeem(8, 1'500 * kMs));
  EXPECT_TRUE(book.Redeem(8, 2'500 * kMs));
}

TEST(AppointmentBookTest, TimesDoNotGrowForThoseWhoNeverReturn) {
  AdmissionPace pace;
  AppointmentBook book;
  uint64_t who = 0;
  int64_t longest_ns = 0;
  // A hundred places a second, a thousand turned away, and none of them comes back.
  for (int64_t now_ns = kMs; now_ns < 60'000 * kMs; now_ns += kMs) {
    if (now_ns % (10 * kMs) == 0) pace.OnAdmitted(0, now_ns);
    const int64_t wait_ns = book.Book(++who, 1, pace, now_ns);
    if (now_ns > 5'000 * kMs) longest_ns = std::max(longest_ns, wait_ns);
  }
  EXPECT_LT(longest_ns, 2'000 * kMs);
  EXPECT_LT(book.size(), AppointmentBook::kMost);
  EXPECT_TRUE(book.Redeem(who, 62'000 * kMs));
}

TEST(AppointmentBookTest, AQueueThatStandsStillTellsLongerTimes) {
  AdmissionPace pace;
  for (int i = 1; i <= 20; ++i) pace.OnAdmitted(0, i * kMs);
  AppointmentBook book;
  EXPECT_EQ(book.Book(1, 1, pace, 20 * kMs), kMs);
  EXPECT_GE(book.Book(2, 1, pace, 5'020 * kMs), 5'000 * kMs);
  // A pause before it was full is none.
  book.OnRoom();
  EXPECT_LT(book.Book(3, 1, pace, 9'000'000 * kMs), 100 * kMs);
}

TEST(AppointmentBookTest, IsBoundedAndForgetsWhoDoesNotCome) {
  const AdmissionPace unknown;
  AppointmentBook book;
  for (size_t i = 1; i <= AppointmentBook::kMost + 10; ++i) book.Book(i, 1, unknown, 0);
  EXPECT_EQ(book.size(), AppointmentBook::kMost);
  for (size_t i = 0; i < 2 * AppointmentBook::kMostOfOne; ++i) book.Book(1, 1, unknown, 0);
  EXPECT_EQ(book.size(), AppointmentBook::kMost);
  const int64_t late_ns = AppointmentBook::kUnknownWaitNs + AppointmentBook::kGraceNs + 1;
  EXPECT_FALSE(book.Redeem(1, late_ns));
  book.Book(1, 1, unknown, late_ns);
  book.Book(2, 1, unknown, late_ns);
  EXPECT_EQ(book.size(), 2u);
}

// Whatever happened before, and whatever others do meanwhile: who was turned away by a full queue
// and waits as long as told is taken.
TEST(AppointmentsInEngineTest, WhoeverWaitsAsLongAsToldIsTaken) {
  int refusals = 0;
  uint32_t questions = 0;
  for (uint32_t round = 0; round < 40; ++round) {
    std::mt19937 random(round);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    EngineOptions options;
    options.max_waiting = static_cast<uint32_t>(draw(4, 30));
    options.shed_priority = draw(0, 1) == 0 ? INT32_MAX : 40;
    TestEngine engine(
        {{"content", "fast"}, {"blocks", "512"}, {"max_sequences", std::to_string(draw(1, 6))}},
        options);
    std::vector<std::unique_ptr<Client>> clients;
    const auto submit = [&](uint64_t tenant, int32_t priority, uint32_t question) {
      std::mt19937 shape(question);
      Request request = MakeRequest(MakePrompt(1 + shape() % 60, question), 1 + shape() % 60);
      request.tenant = tenant;
      request.priority = priority;
      clients.push_back(MakeClient(std::move(request), 1, 256));
      const absl::Status status = engine.Submit(*clients.back());
      if (!status.ok()) clients.pop_back();
      return status;
    };
    const auto step = [&] {
      engine.Step();
      for (const auto& client : clients) client->Read();
      std::erase_if(clients, [](const auto& client) { return client->ended(); });
    };
    struct Refused {
      uint64_t tenant;
      int32_t priority;
      uint32_t question;
      int64_t due_ns;
    };
    std::optional<Refused> waits;
    const int32_t priorities[] = {0, 0, 40, 40, 40};
    for (int i = 0; i < 1000; ++i) {
      if (draw(0, 3) > 0) step();
      // Now and then the device is slow, or nobody steps the engine at all.
      if (draw(0, 199) == 0) engine.clock().AdvanceNanos(draw(0, 50) * 10'000);
      const auto tenant = static_cast<uint64_t>(draw(0, 4));
      // Of the same tenant, but with another question.
      const bool stranger = draw(0, 1) == 0;
      if (waits.has_value() && tenant == waits->tenant && !stranger) {
        const int64_t now_ns = engine.clock().NowNanos();
        if (now_ns < waits->due_ns) continue;
        const absl::Status status = submit(waits->tenant, waits->priority, waits->question);
        ASSERT_TRUE(status.ok()) << "round " << round << ": " << status;
        waits.reset();
        continue;
      }
      const int32_t priority = priorities[tenant];
      const absl::Status status = submit(tenant, priority, ++questions);
      if (status.ok() || waits.has_value()) continue;
      const std::optional<int64_t> wait_ns = RetryAfterNs(status);
      ASSERT_TRUE(wait_ns.has_value()) << status;
      ASSERT_GT(*wait_ns, 0);
      waits = Refused{tenant, priority, questions, engine.clock().NowNanos() + *wait_ns};
      ++refusals;
    }
    // Those who come at their time pass the limit, not all who ask.
    EXPECT_LE(engine->Gauges().waiting, options.max_waiting + 64);
    engine->AbortAll(absl::CancelledError("the end of the test"));
    ASSERT_TRUE(engine.RunUntilIdle());
  }
  EXPECT_GT(refusals, 100);
}

}  // namespace
}  // namespace reticle::scheduler
