#include "server/cli/plan.h"

#include <cmath>
#include <string_view>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/cli/plan_report.h"
#include "server/cli/plan_search.h"
#include "server/cli/plan_simulation.h"
#include "server/cli/plan_statistics.h"
#include "server/cli/plan_traffic.h"

namespace reticle::server::cli {
namespace {

using loadtest::ArrivalMode;
using loadtest::Distribution;
using ::testing::HasSubstr;

// A device whose requests take exactly one ms each: one token out, no time but the prompt's.
const std::vector<std::pair<std::string, std::string>> kOneMs = {
    {"timing.prefill_fixed", "0"}, {"timing.prefill_per_token", "100"},
    {"timing.link_latency", "0"},  {"timing.pipeline_depth", "1"},
    {"limits.max_sequences", "1"}, {"limits.kv_memory", "384"}};

PlanTraffic Traffic(double rate, double prompt, double output) {
  PlanTraffic traffic;
  traffic.rate = rate;
  traffic.prompt = Distribution::Fixed(prompt);
  traffic.output = Distribution::Fixed(output);
  return traffic;
}

PlanOptions Options(const std::vector<std::string>& slos) {
  PlanOptions options;
  options.fleet.profile = "taalas-hc1";
  options.fleet.cards = 0;
  options.requests = 300;
  const auto parsed = ParsePlanSlos(slos);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  options.slos = *parsed;
  return options;
}

double MeanTtftMs(const FleetRun& run) {
  double sum = 0;
  for (const PlannedOutcome& outcome : run.outcomes) {
    EXPECT_EQ(outcome.kind, PlannedOutcome::Kind::kServed);
    sum += static_cast<double>(outcome.ttft_ns) * 1e-6;
  }
  return sum / static_cast<double>(run.outcomes.size());
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// ---- The simulation against queueing theory

// Pollaczek and Khinchine: in M/D/1 a request is in the system for S (1 + rho / (2 (1 - rho))).
TEST(PlanSimulationTest, PoissonArrivalsAtAFixedServiceTimeWaitAsTheFormulaSays) {
  FleetOptions fleet{.profile = "taalas-hc1", .settings = kOneMs, .cards = 1};
  fleet.max_waiting = 100'000;
  const auto alone = SimulateAlone(fleet, Traffic(1, 10, 1), {.measured = 10});
  ASSERT_TRUE(alone.ok()) << alone.status();
  const double service_ms = MeanTtftMs(*alone);
  EXPECT_NEAR(service_ms, 1, 0.01);
  for (const double rho : {0.3, 0.6, 0.8}) {
    std::vector<double> means;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      const auto run = SimulateFleet(fleet, Traffic(rho * 1000 / service_ms, 10, 1),
                                     {.seed = seed, .warm_up = 300, .measured = 3000});
      ASSERT_TRUE(run.ok()) << run.status();
      means.push_back(MeanTtftMs(*run));
      EXPECT_NEAR(run->busy_share, rho, 0.05);
    }
    const Estimate mean = EstimateOf(means);
    const double theory = service_ms * (1 + rho / (2 * (1 - rho)));
    EXPECT_NEAR(mean.value, theory, std::max(2 * mean.half, 0.02 * theory)) << "rho " << rho;
    EXPECT_LT(mean.half, 0.2 * theory);
  }
}

// D/D/1 below saturation: nobody waits at all.
TEST(PlanSimulationTest, ConstantArrivalsBelowTheRateOfServiceNeverWait) {
  const FleetOptions fleet{.profile = "taalas-hc1", .settings = kOneMs, .cards = 1};
  PlanTraffic traffic = Traffic(900, 10, 1);
  traffic.mode = ArrivalMode::kConstant;
  const auto run = SimulateFleet(fleet, traffic, {.measured = 500});
  ASSERT_TRUE(run.ok()) << run.status();
  for (const PlannedOutcome& outcome : run->outcomes) {
    EXPECT_EQ(outcome.ttft_ns, run->outcomes[0].ttft_ns);
  }
}

TEST(PlanSimulationTest, TimesAloneAreTheProfiles) {
  const FleetOptions fleet{.profile = "taalas-hc1", .cards = 1, .host_ns = 250'000};
  const auto run = SimulateAlone(fleet, Traffic(1, 1000, 300), {.measured = 5});
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_EQ(run->outcomes.size(), 5u);
  for (const PlannedOutcome& outcome : run->outcomes) {
    EXPECT_EQ(outcome.output_tokens, 300u);
    EXPECT_NEAR(outcome.tpot_ns, 1e9 / 16960, 1);
    // 1,070 us, 5 us a token, two ways over the link, and the host's time.
    EXPECT_NEAR(static_cast<double>(outcome.ttft_ns), 6.07e6 + 0.25e6, 0.1e6);
    EXPECT_NEAR(static_cast<double>(outcome.e2e_ns - outcome.ttft_ns), 299e9 / 16960, 300);
  }
}

TEST(PlanSimulationTest, RunsAreIdenticalAndSeedsAreNot) {
  const FleetOptions fleet{.profile = "nvidia-h100", .cards = 3};
  PlanTraffic traffic = Traffic(30, 500, 50);
  traffic.prompt = *Distribution::Parse("lognormal:500:0.8@10-4000");
  const auto run = [&](uint64_t seed) {
    auto made = SimulateFleet(fleet, traffic, {.seed = seed, .warm_up = 20, .measured = 100});
    EXPECT_TRUE(made.ok()) << made.status();
    std::vector<int64_t> times;
    for (const PlannedOutcome& outcome : made->outcomes) times.push_back(outcome.e2e_ns);
    times.push_back(std::llround(made->watts * 1e6));
    return times;
  };
  const auto first = run(7);
  EXPECT_EQ(first, run(7));
  EXPECT_NE(first, run(8));
}

TEST(PlanSimulationTest, IdleCardsTakeTheirIdlePower) {
  const FleetOptions fleet{.profile = "taalas-hc1", .cards = 2};
  const auto run = SimulateFleet(fleet, Traffic(1, 10, 10), {.measured = 50});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_NEAR(run->watts, 2 * 50, 2) << "50 W of each, and 0.2 % of the time more";
  EXPECT_NEAR(run->tokens_per_second, 10, 5);
}

TEST(PlanSimulationTest, WhatTheQueueDoesNotTakeIsRefused) {
  FleetOptions fleet{.profile = "taalas-hc1", .settings = kOneMs, .cards = 1};
  fleet.max_waiting = 10;
  const auto run = SimulateFleet(fleet, Traffic(2000, 10, 1), {.warm_up = 100, .measured = 1000});
  ASSERT_TRUE(run.ok()) << run.status();
  size_t refused = 0;
  for (const PlannedOutcome& outcome : run->outcomes) {
    if (outcome.kind == PlannedOutcome::Kind::kRefused) ++refused;
  }
  EXPECT_NEAR(static_cast<double>(refused), 500, 60);
  EXPECT_EQ(run->outcomes.size(), 1000u);
}

// 384 MiB at 64 KiB a token hold 6,144 tokens: four requests of 1,300 at once, and the fifth waits.
TEST(PlanSimulationTest, KvMemoryBoundsWhatRunsAtOnce) {
  FleetOptions fleet{.profile = "taalas-hc1", .cards = 1};
  const auto bounded = SimulateFleet(fleet, Traffic(200, 1000, 300), {.measured = 60});
  fleet.kv_bytes_per_token = 0;
  const auto free = SimulateFleet(fleet, Traffic(200, 1000, 300), {.measured = 60});
  ASSERT_TRUE(bounded.ok() && free.ok()) << bounded.status();
  EXPECT_GT(bounded->kv_share, 0.5);
  EXPECT_GT(bounded->waiting, free->waiting + 5);
}

// ---- The search

TEST(PlanSearchTest, MoreTrafficNeedsNoFewerCardsAndLooserBoundsNoMore) {
  uint32_t before = 0;
  for (const double rate : {40, 240}) {
    const auto plan = MakePlan(Options({"ttft=15ms"}), Traffic(rate, 500, 20));
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_TRUE(plan->plan.has_value()) << plan->impossible;
    const uint32_t cards = plan->plan->cards;
    // 3.57 ms and 20 tokens at 59 us keep a card busy for 4.7 ms.
    EXPECT_GE(cards, rate * 0.0047);
    EXPECT_GE(cards, before);
    EXPECT_EQ(plan->plan->verdict, PlanVerdict::kKept);
    EXPECT_EQ(plan->fewer.has_value(), cards > 1);
    if (plan->fewer.has_value()) EXPECT_NE(plan->fewer->verdict, PlanVerdict::kKept);
    before = cards;
    const auto loose = MakePlan(Options({"ttft=200ms"}), Traffic(rate, 500, 20));
    ASSERT_TRUE(loose.ok() && loose->plan.has_value());
    EXPECT_LE(loose->plan->cards, cards);
  }
  EXPECT_GE(before, 2u);
}

TEST(PlanSearchTest, TheSameSeedGivesTheSamePlanOnAnyNumberOfThreads) {
  PlanOptions options = Options({"ttft=20ms,tpot=200us"});
  options.threads = 1;
  const auto one = MakePlan(options, Traffic(120, 500, 20));
  options.threads = 3;
  const auto three = MakePlan(options, Traffic(120, 500, 20));
  ASSERT_TRUE(one.ok() && three.ok()) << one.status();
  ASSERT_TRUE(one->plan.has_value() && three->plan.has_value());
  EXPECT_EQ(one->plan->cards, three->plan->cards);
  EXPECT_EQ(one->plan->ttft_p99.value, three->plan->ttft_p99.value);
  EXPECT_EQ(one->plan->ttft_p99.half, three->plan->ttft_p99.half);
  EXPECT_EQ(one->plan->watts.value, three->plan->watts.value);
}

TEST(PlanSearchTest, LimitsThatNoNumberOfCardsBettersAreNamed) {
  const struct {
    const char* slo;
    double prompt;
    const char* says;
  } cases[] = {
      {"ttft=5ms", 1000, "TTFT floor: p99 of ttft is 6.07 ms"},
      {"tpot=50us", 1000, "speed of one stream: p99 of tpot is 59.0 us"},
      {"e2e=10ms", 1000, "time of a whole request"},
      {"e2e.p50=10ms", 1000, "e2e.p50 is"},
      {"ttft=1s", 8000, "context limit: 100.00 % of the requests pass the 6144 tokens"},
  };
  for (const auto& one : cases) {
    const auto plan = MakePlan(Options({one.slo}), Traffic(5, one.prompt, 300));
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_FALSE(plan->plan.has_value()) << one.slo;
    EXPECT_THAT(plan->impossible, HasSubstr(one.says));
  }
  PlanOptions few = Options({"ttft=100ms"});
  few.max_cards = 1;
  const auto plan = MakePlan(few, Traffic(300, 500, 20));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->impossible, HasSubstr("the bounds are not kept by 1 card: goodput"));
}

TEST(PlanSearchTest, ADeviceThatCannotBeSimulatedSaysSo) {
  PlanOptions options = Options({"ttft=1s"});
  options.fleet.settings = {{"timing.decode_rate", "nonsense"}};
  EXPECT_FALSE(MakePlan(options, Traffic(1, 10, 10)).ok());
}

TEST(PlanSearchTest, ATraceIsReplayedWithItsTimes) {
  PlanTraffic traffic;
  traffic.mode = ArrivalMode::kTrace;
  for (int i = 0; i < 200; ++i) {
    traffic.trace.entries.push_back(
        {.timestamp_ms = i * 10.0, .input_length = 100 + i % 3, .output_length = 20});
  }
  traffic.rate = 100;
  const auto plan = MakePlan(Options({"ttft=10ms"}), traffic);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_TRUE(plan->plan.has_value()) << plan->impossible;
  EXPECT_EQ(plan->plan->cards, 1u);
  EXPECT_EQ(plan->plan->requests, 200u);
  EXPECT_NEAR(plan->plan->ttft_p50.value, 1.575e6, 0.02e6) << "1,070 us and 101 times 5 us";
  traffic.trace.entries.resize(10);
  EXPECT_THAT(Message(MakePlan(Options({"ttft=10ms"}), traffic).status()),
              HasSubstr("10 requests"));
}

// ---- The statistics

TEST(PlanStatisticsTest, IntervalsAreStudents) {
  const Estimate estimate = EstimateOf({1, 2, 3, 4, 5});
  EXPECT_DOUBLE_EQ(estimate.value, 3);
  EXPECT_NEAR(estimate.half, 2.776 * std::sqrt(2.5 / 5), 1e-9);
  EXPECT_TRUE(std::isinf(EstimateOf({1}).half));
  // 95 of 100 means of 8 are to hold the true one.
  loadtest::Random random(3);
  int held = 0;
  for (int i = 0; i < 1000; ++i) {
    std::vector<double> values;
    for (int k = 0; k < 8; ++k) values.push_back(random.Exponential() + random.Exponential());
    const Estimate mean = EstimateOf(values);
    if (mean.low() <= 2 && 2 <= mean.high()) ++held;
  }
  EXPECT_GE(held, 900);
  EXPECT_LE(held, 980);
}

FleetRun RunOf(double ttft_ms, int served, int refused = 0) {
  FleetRun run;
  run.seconds = 10;
  for (int i = 0; i < served; ++i) {
    run.outcomes.push_back({.output_tokens = 2,
                            .ttft_ns = static_cast<int64_t>(ttft_ms * 1e6),
                            .tpot_ns = 1000,
                            .e2e_ns = static_cast<int64_t>(ttft_ms * 1e6) + 1000});
  }
  for (int i = 0; i < refused; ++i) {
    run.outcomes.push_back({.kind = PlannedOutcome::Kind::kRefused});
  }
  return run;
}

TEST(PlanStatisticsTest, ABoundIsKeptMissedOrUndecided) {
  const auto verdict = [](std::vector<FleetRun> runs, const char* slo) {
    return Evaluate(1, runs, *ParsePlanSlos({slo})).verdict;
  };
  const std::vector<FleetRun> spread = {RunOf(8, 100), RunOf(10, 100), RunOf(12, 100)};
  EXPECT_EQ(verdict(spread, "ttft.p99=20ms"), PlanVerdict::kKept);
  EXPECT_EQ(verdict(spread, "ttft.p99=1ms"), PlanVerdict::kMissed);
  EXPECT_EQ(verdict(spread, "ttft.p99=10.5ms"), PlanVerdict::kUndecided);
  EXPECT_EQ(verdict(spread, "requests_per_second=10"), PlanVerdict::kKept);
  // 300 requests without a failure do not show that 999 of 1,000 are good.
  EXPECT_EQ(verdict(spread, "ttft=20ms,goodput=99.9%"), PlanVerdict::kUndecided);
  EXPECT_EQ(verdict(spread, "ttft=20ms"), PlanVerdict::kKept) << "but they show 99 of 100";
  EXPECT_EQ(verdict({RunOf(1, 50, 50), RunOf(1, 50, 50)}, "rejected=10%"), PlanVerdict::kMissed);
  EXPECT_EQ(verdict({RunOf(1, 0, 50), RunOf(1, 0, 50)}, "ttft.p50=1s"), PlanVerdict::kMissed)
      << "what is never served keeps no bound on a time";
}

// ---- The command line

TEST(PlanOptionsTest, RatesNeedTheirUnit) {
  EXPECT_DOUBLE_EQ(*ParseRate("50/s"), 50);
  EXPECT_DOUBLE_EQ(*ParseRate("3000/min"), 50);
  EXPECT_DOUBLE_EQ(*ParseRate("1.8k/h"), 0.5);
  for (const char* wrong : {"50", "", "/s", "fast/s", "50/week", "0/s", "-3/s", "nan/s", "1e9/s"}) {
    EXPECT_THAT(Message(ParseRate(wrong).status()), HasSubstr("--arrival is")) << wrong;
  }
}

TEST(PlanOptionsTest, LengthsMayBeInThousands) {
  EXPECT_EQ(ParseLength("1k")->ToString(), "1000");
  EXPECT_EQ(ParseLength("1.5k")->ToString(), "1500");
  EXPECT_EQ(ParseLength("lognormal:1k:0.8@16-4k")->ToString(), "lognormal:1000:0.8@16-4000");
  EXPECT_EQ(ParseLength("300")->ToString(), "300");
  for (const char* wrong : {"0", "-5", "1.5", "many", "1kk", "", "1e12"}) {
    EXPECT_FALSE(ParseLength(wrong).ok()) << wrong;
  }
}

TEST(PlanOptionsTest, BoundsPointTheirUsualWay) {
  const auto slos = ParsePlanSlos({"ttft=200ms, tpot<=1ms", "goodput=99.9%"});
  ASSERT_TRUE(slos.ok()) << slos.status();
  EXPECT_EQ(slos->request.ttft_ns, 200'000'000);
  EXPECT_EQ(slos->request.tpot_ns, 1'000'000);
  ASSERT_EQ(slos->run.size(), 1u);
  EXPECT_FALSE(slos->run[0].at_most);
  EXPECT_THAT(Message(ParsePlanSlos({"ttft=200"}).status()), HasSubstr("has no unit"));
  EXPECT_THAT(Message(ParsePlanSlos({"ttft.p99<=200"}).status()), HasSubstr("has no unit"));
  EXPECT_FALSE(ParsePlanSlos({"speed=1ms"}).ok());
  EXPECT_FALSE(ParsePlanSlos({""}).ok());
  EXPECT_THAT(Message(CheckSlos(*ParsePlanSlos({"itl.p99=1ms"}))), HasSubstr("itl.p99"));
}

TEST(PlanOptionsTest, WrongUsageIsTwo) {
  const std::vector<std::string> good = {"--arrival", "5/s",   "--prompt", "10",         "--output",
                                         "10",        "--slo", "ttft=1s",  "--requests", "100"};
  EXPECT_EQ(RunPlan(good), 0);
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), good.begin(), good.end());
    return RunPlan(more);
  };
  EXPECT_EQ(with({"--cards", "0"}), 2);
  EXPECT_EQ(with({"--cv", "2", "--pattern", "constant"}), 2);
  EXPECT_EQ(with({"--profile", "no-such-device"}), 2);
  EXPECT_EQ(with({"--set", "taalas-hc1:timing.no_such_thing=1"}), 2);
  EXPECT_EQ(with({"--price", "cheap"}), 2);
  EXPECT_EQ(with({"--host-time", "fast"}), 2);
  EXPECT_EQ(with({"--trace", "/no/such/file"}), 2);
  EXPECT_EQ(with({"--slo", "e2e=1us"}), 1) << "no plan";
  EXPECT_EQ(RunPlan({"--arrival", "5/s", "--prompt", "10", "--output", "10"}), 2) << "no bounds";
  EXPECT_EQ(RunPlan({"--prompt", "10", "--output", "10", "--slo", "ttft=1s"}), 2) << "no arrivals";
  EXPECT_EQ(RunPlan({"--arrival", "5/s", "--slo", "ttft=1s"}), 2) << "no lengths";
}

// ---- The report

PlanReport ReportOf(const char* name, std::optional<double> usd) {
  const auto profile = backends::hardwired::LoadProfile(name);
  EXPECT_TRUE(profile.ok());
  FleetRun run = RunOf(10, 100);
  run.tokens_per_second = 20'000;
  run.watts = 400;
  PlannedProfile planned;
  planned.name = name;
  planned.title = profile->title;
  const auto slos = *ParsePlanSlos({"ttft=20ms"});
  planned.answer.plan = Evaluate(2, {run, run}, slos);
  planned.answer.fewer = Evaluate(1, {RunOf(50, 100), RunOf(50, 100)}, slos);
  planned.answer.alone = Evaluate(1, {run, run}, slos);
  AddCosts(*profile, usd, &planned);
  return {.traffic = "traffic", .bounds = {"ttft<=20 ms"}, .searched = true, .profiles = {planned}};
}

TEST(PlanReportTest, WattsAndDollarsFollowFromTheTraffic) {
  const PlanReport report = ReportOf("taalas-hc1-server", 10'000.0);
  const PlanCost& cost = report.profiles[0].cost;
  ASSERT_TRUE(cost.watts && cost.watts_in_all && cost.usd_per_hour && cost.usd_per_mtok);
  EXPECT_DOUBLE_EQ(cost.watts->value, 400);
  // 250 W a card of its server against the card's own 200 W; PUE 1.2.
  EXPECT_NEAR(cost.watts_in_all->value, (400 + 2 * 50) * 1.2, 1e-9);
  EXPECT_NEAR(cost.power_usd->value, 0.6 * 0.08, 1e-9);
  // 20,000 tokens a second are 72 million an hour.
  EXPECT_NEAR(cost.usd_per_hour->value, cost.usd_per_mtok->value * 72, 1e-9);
  EXPECT_GT(cost.usd_per_hour->value, cost.power_usd->value);
  EXPECT_NEAR(cost.capital_usd->value, 2 * 10'000 * 1.25 * 1.25, 1e-6);
  EXPECT_EQ(cost.usd_per_hour->letter, 'N');
}

TEST(PlanReportTest, AnUnknownPriceIsNotInvented) {
  const PlanReport report = ReportOf("taalas-hc1", std::nullopt);
  const PlanCost& cost = report.profiles[0].cost;
  EXPECT_FALSE(cost.usd_per_hour.has_value());
  EXPECT_TRUE(cost.power_usd.has_value());
  EXPECT_THAT(PlanTable(report), HasSubstr("its price is unknown"));
  EXPECT_THAT(PlanJson(report), HasSubstr(R"("usd_per_hour":null)"));
}

TEST(PlanReportTest, BothFormsShowTheFigures) {
  PlanReport report = ReportOf("nvidia-h100", std::nullopt);
  PlannedProfile lame;
  lame.name = "lame";
  lame.problem = "it lacks a \"rate\"";
  report.profiles.push_back(lame);
  PlannedProfile impossible;
  impossible.name = "slow";
  impossible.answer.impossible = "TTFT floor";
  report.profiles.push_back(impossible);
  const std::string table = PlanTable(report);
  EXPECT_THAT(table, HasSubstr("nvidia-h100"));
  EXPECT_THAT(table, HasSubstr("undecided: 100.00 +-1.5 %"));
  EXPECT_THAT(table, HasSubstr("10.0 ms"));
  EXPECT_THAT(table, HasSubstr("1 would not do: goodput 0.00 +-1.5 %, goodput>=99% is missed"));
  EXPECT_THAT(table, HasSubstr("lame: it lacks a \"rate\""));
  EXPECT_THAT(table, HasSubstr("slow: impossible: TTFT floor"));
  const std::string json = PlanJson(report);
  EXPECT_THAT(json, HasSubstr(R"("ttft_p99_ms":{"value":10,"low":10,"high":10})"));
  EXPECT_THAT(json, HasSubstr(R"("problem":"it lacks a \"rate\"")"));
  EXPECT_EQ(std::count(json.begin(), json.end(), '{'), std::count(json.begin(), json.end(), '}'));
}

}  // namespace
}  // namespace reticle::server::cli
