#include "scheduler/appointments.h"

#include <algorithm>
#include <map>
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

Asker Of(uint64_t tenant, uint32_t most = 1) { return {tenant, most, {}}; }

TEST(AppointmentBookTest, TimesFollowEachOtherAtThePaceOfTheQueue) {
  AdmissionPace pace;
  for (int i = 1; i <= 20; ++i) pace.OnAdmitted(0, i * 10 * kMs);
  AppointmentBook book;
  const int64_t now_ns = 200 * kMs;
  EXPECT_EQ(book.Book(Of(1), 1, pace, now_ns), 10 * kMs);
  EXPECT_EQ(book.Book(Of(2), 1, pace, now_ns), 20 * kMs);
  EXPECT_EQ(book.Book(Of(3), 1, pace, now_ns), 30 * kMs);
  // Whoever needs more places waits for more of them.
  EXPECT_EQ(book.Book(Of(4), 8, pace, now_ns), 80 * kMs);
}

TEST(AppointmentBookTest, ATenantHasAsManyAsItMay) {
  AdmissionPace pace;
  for (int i = 1; i <= 20; ++i) pace.OnAdmitted(0, i * 10 * kMs);
  AppointmentBook book;
  const int64_t now_ns = 200 * kMs;
  for (int i = 1; i <= 4; ++i) EXPECT_EQ(book.Book(Of(1, 4), 1, pace, now_ns), i * 10 * kMs);
  // Asking again changes nothing.
  EXPECT_EQ(book.Book(Of(1, 4), 1, pace, now_ns + 5 * kMs), 35 * kMs);
  EXPECT_EQ(book.Book(Of(2), 1, pace, now_ns), 50 * kMs);
  for (int i = 1; i <= 4; ++i) {
    EXPECT_TRUE(book.Redeem(Of(1, 4), false, now_ns + i * 10 * kMs));
    EXPECT_FALSE(book.Redeem(Of(1, 4), false, now_ns + i * 10 * kMs));
  }
}

// Two connections, and one that made no appointment.
struct Connections {
  explicit Connections(uint64_t tenant)
      : me{tenant, 4, mine}, other{tenant, 4, others}, third{tenant, 4, thirds} {}
  std::shared_ptr<char> mine = std::make_shared<char>();
  std::shared_ptr<char> others = std::make_shared<char>();
  std::shared_ptr<char> thirds = std::make_shared<char>();
  Asker me, other, third;
};

TEST(AppointmentBookTest, StrangersTakeNobodysAppointment) {
  const AdmissionPace unknown;
  AppointmentBook book;
  Connections of(0);
  book.Book(of.me, 1, unknown, 0);
  book.Book(of.other, 1, unknown, 0);
  const int64_t due_ns = AppointmentBook::kUnknownWaitNs;
  EXPECT_FALSE(book.Redeem(of.third, false, due_ns));
  EXPECT_FALSE(book.Redeem({}, false, due_ns));
  EXPECT_FALSE(book.Redeem(Of(5), true, due_ns));
  // It may have come back on a new connection.
  of.others.reset();
  EXPECT_TRUE(book.Redeem(of.third, false, due_ns));
  EXPECT_FALSE(book.Redeem(of.third, false, due_ns));
  EXPECT_TRUE(book.Redeem(of.me, false, due_ns));
  EXPECT_EQ(book.size(), 0u);
}

// Clients with a pool of connections come back on any of them.
TEST(AppointmentBookTest, WhoComesOnAnotherConnectionTakesNothingFromWhomItWasTold) {
  const AdmissionPace unknown;
  for (const uint64_t tenant : {uint64_t{0}, uint64_t{7}}) {
    AppointmentBook book;
    const Connections of(tenant);
    book.Book(of.me, 1, unknown, 0);
    book.Book(of.other, 1, unknown, 1);
    const int64_t due_ns = AppointmentBook::kUnknownWaitNs;
    EXPECT_FALSE(book.Redeem(of.third, true, due_ns - 1));
    // By one whose own time has not come, then by the one that it was told to.
    EXPECT_TRUE(book.Redeem(of.other, true, due_ns));
    EXPECT_FALSE(book.Redeem(of.third, true, due_ns));
    EXPECT_TRUE(book.Redeem(of.me, true, due_ns));
    EXPECT_TRUE(book.Redeem(of.me, true, due_ns + 1));
    EXPECT_TRUE(book.Redeem(of.other, true, due_ns + 1));
    EXPECT_FALSE(book.Redeem(of.other, true, due_ns + 1));
    EXPECT_EQ(book.size(), 0u);
  }
}

// Each comes on a connection of its own, as curl does.
TEST(AppointmentBookTest, ANewRequestTakesNothingFromOneThatComesBack) {
  const AdmissionPace unknown;
  AppointmentBook book;
  book.Book(Of(7, 4), 1, unknown, 0);
  const int64_t due_ns = AppointmentBook::kUnknownWaitNs;
  EXPECT_TRUE(book.Redeem(Of(7), true, due_ns));
  EXPECT_TRUE(book.Redeem(Of(7), true, due_ns));
  EXPECT_FALSE(book.Redeem(Of(7), true, due_ns));
}

TEST(AppointmentBookTest, WhatIsMissedFreesItsPlaceForThoseToCome) {
  const AdmissionPace unknown;
  AppointmentBook book;
  book.Book(Of(7), 1, unknown, 0);
  const auto open = std::make_shared<char>();
  const int64_t late_ns = AppointmentBook::kUnknownWaitNs + AppointmentBook::kGraceNs + 1;
  EXPECT_EQ(book.Book({7, 1, open}, 1, unknown, late_ns), AppointmentBook::kUnknownWaitNs);
  EXPECT_EQ(book.size(), 1u);
  // One that is lent is still its owner's: nothing more is promised.
  const int64_t due_ns = late_ns + AppointmentBook::kUnknownWaitNs;
  EXPECT_TRUE(book.Redeem(Of(7), true, due_ns));
  EXPECT_FALSE(book.Book(Of(7), 1, unknown, due_ns).has_value());
  EXPECT_TRUE(book.Redeem({7, 1, open}, false, due_ns));
}

TEST(AppointmentBookTest, ABurstIsNotTakenForThePace) {
  // 32 end together, every second.
  AdmissionPace pace;
  for (int i = 32; i < 20 * 32; ++i) pace.OnAdmitted(0, i / 32 * 1'000 * kMs);
  EXPECT_GE(pace.mean_gap_ns(), 1'000 * kMs / 40);
  AppointmentBook book;
  std::optional<int64_t> wait_ns;
  for (uint64_t tenant = 1; tenant <= 320; ++tenant) {
    wait_ns = book.Book(Of(tenant), 1, pace, 19'000 * kMs);
  }
  EXPECT_GE(*wait_ns, 8'000 * kMs);
}

TEST(AppointmentBookTest, IsKeptOnceForItsTenantAndNotBeforeItsTime) {
  const AdmissionPace unknown;
  AppointmentBook book;
  EXPECT_EQ(book.Book(Of(7), 1, unknown, 0), AppointmentBook::kUnknownWaitNs);
  EXPECT_FALSE(book.Redeem(Of(7), false, AppointmentBook::kUnknownWaitNs - 1));
  EXPECT_FALSE(book.Redeem(Of(8), false, AppointmentBook::kUnknownWaitNs));
  EXPECT_TRUE(book.Redeem(Of(7), false, AppointmentBook::kUnknownWaitNs));
  EXPECT_FALSE(book.Redeem(Of(7), false, AppointmentBook::kUnknownWaitNs));
  EXPECT_EQ(book.size(), 0u);
}

TEST(AppointmentBookTest, EverybodyWithoutANameHasOneEach) {
  const AdmissionPace unknown;
  AppointmentBook book;
  for (int i = 0; i < 3; ++i) book.Book(Of(0), 1, unknown, 0);
  int kept = 0;
  for (int i = 0; i < 5; ++i) kept += book.Redeem(Of(0), false, 2'000 * kMs) ? 1 : 0;
  EXPECT_EQ(kept, 3);
}

TEST(AppointmentBookTest, AQueueThatStandsStillTellsLongerTimes) {
  AdmissionPace pace;
  for (int i = 1; i <= 20; ++i) pace.OnAdmitted(0, i * kMs);
  AppointmentBook book;
  EXPECT_EQ(book.Book(Of(1), 1, pace, 20 * kMs), kMs);
  EXPECT_GE(book.Book(Of(2), 1, pace, 5'020 * kMs), 5'000 * kMs);
  // A pause before it was full is none.
  book.OnRoom();
  EXPECT_LT(book.Book(Of(3), 1, pace, 9'000'000 * kMs), 100 * kMs);
}

TEST(AppointmentBookTest, IsBoundedAndForgetsWhoDoesNotCome) {
  const AdmissionPace unknown;
  AppointmentBook book;
  for (size_t i = 1; i <= AppointmentBook::kMost + 10; ++i) book.Book(Of(i), 1, unknown, 0);
  EXPECT_EQ(book.size(), AppointmentBook::kMost);
  // Nothing is promised to whom it has no room for.
  EXPECT_FALSE(book.Book(Of(0), 1, unknown, 0).has_value());
  EXPECT_FALSE(book.Book(Of(AppointmentBook::kMost + 10), 1, unknown, 0).has_value());
  EXPECT_EQ(book.size(), AppointmentBook::kMost);
  const int64_t late_ns = AppointmentBook::kUnknownWaitNs + AppointmentBook::kGraceNs + 1;
  EXPECT_FALSE(book.Redeem(Of(1), false, late_ns));
  book.Book(Of(1), 1, unknown, late_ns);
  book.Book(Of(2), 1, unknown, late_ns);
  EXPECT_EQ(book.size(), 2u);
}

// Whatever happened before, and whatever others do meanwhile: who was turned away by a full queue
// and waits as long as told is taken; so are several requests of one tenant, and those that come in
// several parts.
TEST(AppointmentsInEngineTest, WhoeverWaitsAsLongAsToldIsTaken) {
  int refusals = 0;
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
    const auto submit = [&](uint64_t tenant, int32_t priority, uint32_t parts) {
      absl::Status status;
      for (uint32_t part = 0; part < parts && status.ok(); ++part) {
        Request request = MakeRequest(MakePrompt(static_cast<size_t>(draw(1, 60))),
                                      static_cast<uint32_t>(draw(1, 60)));
        request.tenant = tenant;
        request.priority = priority;
        request.more_sequences = part == 0 ? parts - 1 : 0;
        request.admitted = part > 0;
        request.appointments = 5;
        clients.push_back(MakeClient(std::move(request), 1, 256));
        status = engine.Submit(*clients.back());
        EXPECT_TRUE(part == 0 || status.ok()) << status;
        if (!status.ok()) clients.pop_back();
      }
      return status;
    };
    const auto step = [&] {
      engine.Step();
      for (const auto& client : clients) client->Read();
      std::erase_if(clients, [](const auto& client) { return client->ended(); });
    };
    // Tenants 1 and 2 are patient: what is refused comes again when it may, not before. Tenants 3
    // and 4 ask again and again.
    struct Refused {
      uint64_t tenant;
      uint32_t parts;
    };
    const int32_t priorities[] = {0, 0, 40, 0, 40};
    std::multimap<int64_t, Refused> patient;
    const auto ask = [&](uint64_t tenant, uint32_t parts) {
      const absl::Status status = submit(tenant, priorities[tenant], parts);
      if (status.ok() || tenant > 2) return status;
      const std::optional<int64_t> wait_ns = RetryAfterNs(status);
      EXPECT_TRUE(wait_ns.has_value() && *wait_ns > 0) << status;
      patient.emplace(engine.clock().NowNanos() + wait_ns.value_or(0), Refused{tenant, parts});
      ++refusals;
      return status;
    };
    // A tenant that has asked for a time does nothing else until then.
    const auto has_a_time = [&](uint64_t tenant) {
      return std::any_of(patient.begin(), patient.end(),
                         [&](const auto& entry) { return entry.second.tenant == tenant; });
    };
    for (int i = 0; i < 1000; ++i) {
      if (draw(0, 3) > 0) step();
      // Now and then the device is slow, or nobody steps the engine at all.
      if (draw(0, 199) == 0) engine.clock().AdvanceNanos(draw(0, 50) * 10'000);
      while (!patient.empty() && patient.begin()->first <= engine.clock().NowNanos()) {
        const Refused refused = patient.begin()->second;
        patient.erase(patient.begin());
        const absl::Status status =
            submit(refused.tenant, priorities[refused.tenant], refused.parts);
        ASSERT_TRUE(status.ok()) << "round " << round << ": " << status;
      }
      const auto tenant = static_cast<uint64_t>(draw(1, 4));
      const auto parts = static_cast<uint32_t>(draw(1, 2));
      if (tenant > 2) {
        (void)ask(tenant, parts);
      } else if (!has_a_time(tenant)) {
        for (int together = draw(1, 5); together > 0; --together) (void)ask(tenant, parts);
      }
    }
    engine->AbortAll(absl::CancelledError("the end of the test"));
    ASSERT_TRUE(engine.RunUntilIdle());
  }
  EXPECT_GT(refusals, 200);
}

// Ten times as many tenants as the engine has room for, each of whom comes back as soon as it may:
// the queue passes its limit by little.
TEST(AppointmentsInEngineTest, OverloadThatWaitsAsLongAsToldLeavesTheQueueNearItsLimit) {
  EngineOptions options;
  options.max_waiting = 16;
  TestEngine engine(
      {{"content", "fast"}, {"blocks", "512"}, {"max_sequences", "4"}, {"credits", "1"}}, options);
  struct Tenant {
    std::unique_ptr<Client> client;
    int64_t due_ns = 0;
  };
  std::vector<Tenant> tenants(200);
  uint32_t longest = 0;
  int served = 0;
  for (int i = 0; i < 20'000; ++i) {
    engine.Step();
    for (size_t t = 0; t < tenants.size(); ++t) {
      Tenant& tenant = tenants[t];
      if (tenant.client != nullptr) {
        tenant.client->Read();
        if (!tenant.client->ended()) continue;
        tenant.client.reset();
        ++served;
      }
      if (engine.clock().NowNanos() < tenant.due_ns) continue;
      Request request = MakeRequest(MakePrompt(8), 1 + static_cast<uint32_t>(t % 60));
      request.tenant = t + 1;
      tenant.client = MakeClient(std::move(request), 1, 4);
      const absl::Status status = engine.Submit(*tenant.client);
      if (status.ok()) {
        tenant.due_ns = 0;
        continue;
      }
      tenant.client.reset();
      ASSERT_EQ(tenant.due_ns, 0) << "a time told was not kept";
      tenant.due_ns = engine.clock().NowNanos() + RetryAfterNs(status).value_or(0);
    }
    longest = std::max(longest, engine->Gauges().waiting);
  }
  EXPECT_GT(served, 2'000);
  EXPECT_GE(longest, options.max_waiting);
  EXPECT_LE(longest, 2 * options.max_waiting);
}

}  // namespace
}  // namespace reticle::scheduler
