#include "server/tenants/quota.h"

#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/retry_after.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tenants/address_limiter.h"

namespace reticle::server::tenants {
namespace {

using ::testing::HasSubstr;

QuotaRequest Ask(int64_t tokens, const TierLimits& limits, const std::string& who = "org") {
  QuotaRequest request;
  request.organisation = who;
  request.limits = limits;
  request.tokens = tokens;
  return request;
}

// A place is expected to be free at once.
constexpr auto kSoon = [] { return int64_t{0}; };

TEST(Quota, WhoeverWaitsAsLongAsToldPassesAndNotEarlier) {
  std::mt19937_64 random(7);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int refusals = 0;
  for (int round = 0; round < 300; ++round) {
    ManualClock clock(draw(0, 1'000'000'000'000));
    LocalQuota quota(clock);
    TierLimits limits;
    if (draw(0, 3) > 0) limits.requests_per_minute = draw(1, 100);
    if (draw(0, 3) > 0) limits.requests_per_day = draw(1, 10'000);
    if (draw(0, 3) > 0) limits.tokens_per_minute = draw(1, 100'000);
    if (draw(0, 3) > 0) limits.tokens_per_day = draw(1, 1'000'000);
    for (int i = 0; i < 100; ++i) {
      clock.AdvanceNanos(draw(0, 3'000'000'000));
      const QuotaRequest request = Ask(draw(0, 5'000), limits);
      QuotaDecision decision = quota.Reserve(request, "", kSoon);
      if (decision.retry_after_ns < 0) {
        EXPECT_FALSE(decision.granted);
        EXPECT_GT(request.tokens,
                  std::min(limits.tokens_per_minute == 0 ? INT64_MAX : limits.tokens_per_minute,
                           limits.tokens_per_day == 0 ? INT64_MAX : limits.tokens_per_day));
        continue;
      }
      if (!decision.granted) {
        ++refusals;
        ASSERT_GT(decision.retry_after_ns, 0);
        clock.AdvanceNanos(decision.retry_after_ns - 1);
        ASSERT_FALSE(quota.Reserve(request, "", kSoon).granted) << "the time told was too long";
        clock.AdvanceNanos(1);
        decision = quota.Reserve(request, "", kSoon);
        ASSERT_TRUE(decision.granted) << "the time told was too short";
      }
      quota.Settle(request, "", 0, draw(0, request.tokens));
    }
  }
  EXPECT_GT(refusals, 1000);
}

TEST(Quota, GivesOutExactlyItsLimitInABurst) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_minute = 30;
  int granted = 0;
  for (int i = 0; i < 100; ++i) granted += quota.Reserve(Ask(1, limits), "", kSoon).granted ? 1 : 0;
  EXPECT_EQ(granted, 30);
  clock.AdvanceNanos(60'000'000'000);
  granted = 0;
  for (int i = 0; i < 100; ++i) granted += quota.Reserve(Ask(1, limits), "", kSoon).granted ? 1 : 0;
  EXPECT_EQ(granted, 30);
}

// Whatever was admitted before and however long it runs: who waits as long as told passes.
TEST(Quota, WhoeverWaitsAsLongAsToldPassesWithPlacesToo) {
  std::mt19937_64 random(11);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int refusals = 0;
  for (int round = 0; round < 300; ++round) {
    ManualClock clock(draw(1, 1'000'000'000'000));
    LocalQuota quota(clock);
    TierLimits limits;
    limits.concurrent = draw(1, 5);
    if (draw(0, 1) > 0) limits.requests_per_minute = draw(1, 100);
    if (draw(0, 1) > 0) limits.requests_per_day = draw(1, 10'000);
    if (draw(0, 1) > 0) limits.tokens_per_minute = draw(5'000, 100'000);
    if (draw(0, 1) > 0) limits.tokens_per_day = draw(5'000, 1'000'000);
    std::vector<QuotaRequest> running;
    const auto end_some = [&] {
      while (!running.empty() && draw(0, 2) == 0) {
        const auto ended = running.begin() + draw(0, static_cast<int64_t>(running.size()) - 1);
        quota.Settle(*ended, "", 0, draw(0, ended->tokens));
        running.erase(ended);
      }
    };
    for (int i = 0; i < 100; ++i) {
      clock.AdvanceNanos(draw(0, 3'000'000'000));
      end_some();
      const QuotaRequest request = Ask(draw(0, 5'000), limits);
      // What is expected may be far too short.
      const int64_t expected_ns = draw(0, 1) * draw(0, 20'000'000'000);
      const auto forecast = [&] { return expected_ns; };
      QuotaDecision decision = quota.Reserve(request, "", forecast);
      if (!decision.granted) {
        ++refusals;
        ASSERT_GT(decision.retry_after_ns, 0);
        // Waits in pieces, sometimes asking too early, while its own requests end or do not.
        int64_t left_ns = decision.retry_after_ns;
        while (left_ns > 0) {
          const int64_t piece_ns = draw(1, left_ns);
          clock.AdvanceNanos(piece_ns);
          left_ns -= piece_ns;
          if (draw(0, 3) == 0) end_some();
        }
        decision = quota.Reserve(request, "", forecast);
        ASSERT_TRUE(decision.granted) << "round " << round << ": the time told was too short";
      }
      running.push_back(request);
    }
  }
  EXPECT_GT(refusals, 3000);
}

TEST(Quota, PromisedPlacesPassTheLimitByALogarithmAtMost) {
  ManualClock clock(1);
  LocalQuota quota(clock);
  TierLimits limits;
  limits.concurrent = 4;
  // Nothing ever ends, and each time as told one more comes.
  int running = 0;
  constexpr int64_t kHourNs = 3'600'000'000'000;
  while (clock.NowNanos() < kHourNs) {
    const QuotaDecision decision = quota.Reserve(Ask(1, limits), "", kSoon);
    if (decision.granted) {
      ++running;
    } else {
      clock.AdvanceNanos(decision.retry_after_ns);
    }
  }
  EXPECT_LE(running, 4 + 13);
  // Asking again and again before the time told gains nothing.
  const int before = running;
  for (int i = 0; i < 1000; ++i) {
    running += quota.Reserve(Ask(1, limits), "", kSoon).granted ? 1 : 0;
    clock.AdvanceNanos(1'000'000);
  }
  EXPECT_LE(running, before + 1);
}

TEST(Quota, UnusedTokensComeBackAndNeverBeyondTheLimit) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.tokens_per_minute = 1000;
  const QuotaRequest large = Ask(900, limits);
  ASSERT_TRUE(quota.Reserve(large, "", kSoon).granted);
  EXPECT_FALSE(quota.Reserve(Ask(200, limits), "", kSoon).granted);
  quota.Settle(large, "", 0, 850);
  QuotaDecision decision = quota.Reserve(Ask(200, limits), "", kSoon);
  ASSERT_TRUE(decision.granted);
  EXPECT_EQ(decision.state[2].remaining, 750);
  clock.AdvanceNanos(60'000'000'000);
  quota.Settle(Ask(200, limits), "", 0, 200);
  EXPECT_EQ(quota.Peek("org", limits)[2].remaining, 1000);
}

TEST(Quota, ARefusalTakesNothing) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_minute = 10;
  limits.tokens_per_minute = 100;
  ASSERT_TRUE(quota.Reserve(Ask(60, limits), "", kSoon).granted);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(quota.Reserve(Ask(60, limits), "", kSoon).granted);
  EXPECT_EQ(quota.Peek("org", limits)[0].remaining, 9);
}

TEST(Quota, MoreThanTheLimitIsNeverGranted) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.tokens_per_day = 100;
  const QuotaDecision decision = quota.Reserve(Ask(101, limits), "", kSoon);
  EXPECT_FALSE(decision.granted);
  EXPECT_EQ(decision.retry_after_ns, -1);
  EXPECT_EQ(decision.kind, QuotaKind::kTokensPerDay);
}

TEST(Quota, PlacesAreGivenBack) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.concurrent = 2;
  const QuotaRequest request = Ask(10, limits);
  EXPECT_TRUE(quota.Reserve(request, "", kSoon).granted);
  EXPECT_TRUE(quota.Reserve(request, "", kSoon).granted);
  const QuotaDecision third = quota.Reserve(request, "", kSoon);
  EXPECT_FALSE(third.granted);
  EXPECT_EQ(third.kind, QuotaKind::kConcurrent);
  EXPECT_GT(third.retry_after_ns, 0);
  quota.Settle(request, "", 0, 0);
  EXPECT_TRUE(quota.Reserve(request, "", kSoon).granted);
}

TEST(Quota, OrganisationsDoNotShare) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_day = 1;
  EXPECT_TRUE(quota.Reserve(Ask(1, limits, "a"), "", kSoon).granted);
  EXPECT_FALSE(quota.Reserve(Ask(1, limits, "a"), "", kSoon).granted);
  EXPECT_TRUE(quota.Reserve(Ask(1, limits, "b"), "", kSoon).granted);
}

TEST(Quota, WhatWasUsedTodayCountsAfterARestart) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_day = 100;
  limits.tokens_per_day = 1000;
  quota.Seed("org", limits, 40, 5000);
  const QuotaState state = quota.Peek("org", limits);
  EXPECT_EQ(state[1].remaining, 60);
  EXPECT_EQ(state[3].remaining, 0);
}

TEST(Quota, ManyThreadsNeverPassTheLimit) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_minute = 1000;
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i)
        granted += quota.Reserve(Ask(1, limits), "", kSoon).granted ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(granted, 1000);
}

TEST(Quota, HeadersOfBothConventions) {
  ManualClock clock;
  LocalQuota quota(clock);
  TierLimits limits;
  limits.requests_per_day = 14'400;
  limits.tokens_per_minute = 6'000;
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(quota.Reserve(Ask(100, limits), "", kSoon).granted);
  std::string headers;
  AppendRateLimitHeaders(headers, quota.Peek("org", limits));
  for (const char* line :
       {"x-ratelimit-limit-requests: 14400\r\n", "x-ratelimit-remaining-requests: 14370\r\n",
        // 30 of 14,400 come back in 180 s.
        "x-ratelimit-reset-requests: 3m0s\r\n", "x-ratelimit-limit-tokens: 6000\r\n",
        "x-ratelimit-remaining-tokens: 3000\r\n", "x-ratelimit-reset-tokens: 30s\r\n",
        "x-ratelimit-limit-requests-day: 14400\r\n",
        "x-ratelimit-remaining-requests-day: 14370\r\n",
        "x-ratelimit-reset-requests-day: 180.000\r\n", "x-ratelimit-limit-tokens-minute: 6000\r\n",
        "x-ratelimit-remaining-tokens-minute: 3000\r\n",
        "x-ratelimit-reset-tokens-minute: 30.000\r\n"}) {
    EXPECT_THAT(headers, HasSubstr(line));
  }
  headers.clear();
  AppendRateLimitHeaders(headers, QuotaState());
  EXPECT_EQ(headers, "");
}

TEST(Quota, DurationsReadAsTheConventionWritesThem) {
  EXPECT_EQ(FormatDuration(7'660'000'000), "7.66s");
  EXPECT_EQ(FormatDuration(179'560'000'000), "2m59.56s");
  EXPECT_EQ(FormatDuration(88'000'000), "88ms");
  EXPECT_EQ(FormatDuration(87'000'001), "88ms");
  EXPECT_EQ(FormatDuration(3'600'000'000'000), "1h0m0s");
  EXPECT_EQ(FormatDuration(1'000'000'001), "1.01s");
}

TEST(AddressLimiter, LimitsOneAddressAndTellsWhen) {
  ManualClock clock;
  AddressLimiter limiter(2, clock);
  EXPECT_TRUE(limiter.Take("192.0.2.1").ok());
  EXPECT_TRUE(limiter.Take("192.0.2.1").ok());
  EXPECT_FALSE(limiter.Take("192.0.2.1").ok());
  EXPECT_TRUE(limiter.Take("192.0.2.2").ok());
  clock.AdvanceNanos(1'800'000'000'000);
  EXPECT_TRUE(limiter.Take("192.0.2.1").ok());
}

TEST(AddressLimiter, OneIpv6NetworkIsOneAddress) {
  ManualClock clock;
  AddressLimiter limiter(1, clock);
  EXPECT_TRUE(limiter.Take("2001:db8:0:1::1").ok());
  EXPECT_FALSE(limiter.Take("2001:db8:0:1:ffff::2").ok());
  EXPECT_TRUE(limiter.Take("2001:db8:0:2::1").ok());
  EXPECT_TRUE(limiter.Take("::ffff:192.0.2.1").ok());
  EXPECT_TRUE(limiter.Take("::ffff:192.0.2.2").ok());
}

TEST(AddressLimiter, ForgetsAddressesBeforeItForgetsItsOwnLimit) {
  ManualClock clock;
  AddressLimiter limiter(1, clock);
  for (size_t i = 0; i < AddressLimiter::kMaxAddresses; ++i) {
    ASSERT_TRUE(limiter.Take(std::to_string(i)).ok());
  }
  EXPECT_FALSE(limiter.Take("one more").ok());
  clock.AdvanceNanos(3'600'000'000'000);
  EXPECT_TRUE(limiter.Take("one more").ok());
}

TEST(AddressLimiter, KeepsTheTimeToldToANewAddressAlthoughAllPlacesStayTaken) {
  ManualClock clock;
  AddressLimiter limiter(4, clock);
  const auto others_ask = [&](size_t times) {
    for (size_t i = 0; i < times * AddressLimiter::kMaxAddresses; ++i) {
      (void)limiter.Take(std::to_string(i % AddressLimiter::kMaxAddresses));
    }
  };
  others_ask(2);
  const absl::Status refusal = limiter.Take("one more");
  ASSERT_TRUE(absl::IsResourceExhausted(refusal));
  const std::optional<int64_t> wait_ns = RetryAfterNs(refusal);
  ASSERT_TRUE(wait_ns.has_value());
  clock.AdvanceNanos(*wait_ns - 1);
  others_ask(1);
  EXPECT_FALSE(limiter.Take("one more").ok());
  clock.AdvanceNanos(1);
  EXPECT_TRUE(limiter.Take("one more").ok());
}

TEST(AddressLimiter, PromisesNothingToAnAddressThatItDoesNotRemember) {
  ManualClock clock;
  AddressLimiter limiter(1, clock);
  for (size_t i = 0; i < 2 * AddressLimiter::kMaxAddresses; ++i) {
    (void)limiter.Take(std::to_string(i));
  }
  const absl::Status refusal = limiter.Take("one more");
  ASSERT_TRUE(absl::IsResourceExhausted(refusal));
  EXPECT_FALSE(RetryAfterNs(refusal).has_value());
  clock.AdvanceNanos(3'600'000'000'000);
  EXPECT_TRUE(limiter.Take("one more").ok());
}

}  // namespace
}  // namespace reticle::server::tenants
