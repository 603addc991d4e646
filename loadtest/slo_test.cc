#include "loadtest/slo.h"

#include <gtest/gtest.h>

#include "loadtest/recorder.h"
#include "loadtest/report.h"

namespace reticle::loadtest {
namespace {

TEST(SloTest, ReadsBoundsOnRequestsAndOnTheRun) {
  const auto set = ParseSlos({"ttft<=50ms", "tpot <= 100us", "e2e<=2s", "ttft.p99<=100ms",
                              "errors<=1%", "output_tokens_per_second>=500000"});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->request.ttft_ns, 50'000'000);
  EXPECT_EQ(set->request.tpot_ns, 100'000);
  EXPECT_EQ(set->request.e2e_ns, 2'000'000'000);
  ASSERT_EQ(set->run.size(), 4u);
  EXPECT_EQ(set->run[0].metric, "ttft.p99");
  EXPECT_EQ(set->run[0].limit, 100e6);
  EXPECT_TRUE(set->run[0].at_most);
  EXPECT_DOUBLE_EQ(set->run[1].limit, 0.01);
  EXPECT_FALSE(set->run[2].at_most);
  // Bounds on requests without one on goodput.
  EXPECT_EQ(set->run[3].metric, "goodput");
  EXPECT_DOUBLE_EQ(set->run[3].limit, 0.99);
}

TEST(SloTest, OwnGoodputBoundReplacesTheDefault) {
  const auto set = ParseSlos({"ttft<=50ms", "goodput>=95%"});
  ASSERT_TRUE(set.ok());
  ASSERT_EQ(set->run.size(), 1u);
  EXPECT_DOUBLE_EQ(set->run[0].limit, 0.95);
}

TEST(SloTest, RefusesWhatIsNoBound) {
  for (const char* text : {"", "ttft", "ttft<5ms", "ttft>=5ms", "ttft<=x", "ttft.p0<=5ms",
                           "ttft.p101<=5ms", "ttft.median<=5ms", "foo<=1", "errors<=150%",
                           "requests_per_second>=5%", "errors.p99<=1%", "ttft<=-5ms"}) {
    const auto set = ParseSlos({text});
    EXPECT_FALSE(set.ok()) << text;
    EXPECT_NE(set.status().message().find(text), std::string::npos);
  }
}

TEST(SloTest, JudgesEachBound) {
  const auto set = ParseSlos({"ttft.p99<=100ms", "requests_per_second>=10", "itl.p50<=1ms"});
  ASSERT_TRUE(set.ok());
  const auto verdicts = JudgeSlos(*set, [](std::string_view metric) -> std::optional<double> {
    if (metric == "ttft.p99") return 100e6;
    if (metric == "requests_per_second") return 9.9;
    return std::nullopt;
  });
  ASSERT_EQ(verdicts.size(), 3u);
  EXPECT_TRUE(verdicts[0].met);
  EXPECT_FALSE(verdicts[1].met);
  EXPECT_TRUE(verdicts[1].known);
  EXPECT_FALSE(verdicts[2].met);
  EXPECT_FALSE(verdicts[2].known);
}

// A request of `tokens` tokens in as many events: first text at `ttft`, one every `gap`, all in ms
// after `intended`.
Request Streamed(int64_t intended_ms, int64_t ttft_ms, int64_t gap_ms, int64_t tokens,
                 Recorder& recorder) {
  constexpr int64_t kMs = 1'000'000;
  Request request;
  request.max_tokens = tokens;
  request.intended_ns = intended_ms * kMs;
  request.outcome.started_ns = request.outcome.sent_ns = request.intended_ns;
  recorder.Sent(request);
  for (int64_t i = 0; i < tokens; ++i) {
    recorder.Events(request.outcome, request.intended_ns + (ttft_ms + i * gap_ms) * kMs, 1);
  }
  request.outcome.end_ns = request.outcome.last_ns;
  request.outcome.finish = FinishReason::kLength;
  request.outcome.usage = {.present = true, .prompt_tokens = 5, .completion_tokens = tokens};
  return request;
}

Recorder::Options Window(int64_t begin_ms, int64_t end_ms) {
  Recorder::Options options;
  options.window_begin_ns = begin_ms * 1'000'000;
  options.window_end_ns = end_ms * 1'000'000;
  options.interval_ns = 100'000'000;
  options.expect_exact_length = true;
  return options;
}

TEST(RecorderTest, MeasuresTheDefinitions) {
  Recorder::Options options = Window(0, 1000);
  options.slo.ttft_ns = 15'000'000;
  Recorder recorder(options);
  recorder.Finished(Streamed(0, 10, 2, 11, recorder));
  recorder.Finished(Streamed(0, 20, 4, 11, recorder));
  EXPECT_EQ(recorder.successes, 2);
  EXPECT_EQ(recorder.good, 1);
  EXPECT_EQ(recorder.ttft.min(), 10'000'000);
  EXPECT_EQ(recorder.ttft.max(), 20'000'000);
  // (e2e - ttft) / (n - 1)
  EXPECT_EQ(recorder.tpot.min(), 2'000'000);
  EXPECT_EQ(recorder.tpot.max(), 4'000'000);
  EXPECT_EQ(recorder.e2e.max(), 60'000'000);
  EXPECT_EQ(recorder.gap.count(), 20u);
  EXPECT_EQ(recorder.gap.max(), 4'000'000);
  EXPECT_EQ(recorder.completion_tokens, 22);
  EXPECT_DOUBLE_EQ(recorder.window_tokens, 22);
  // 10 gaps of 2 ms: 500 tokens a second, in thousandths.
  EXPECT_EQ(recorder.stream_rate.max(), 500'000);
  EXPECT_EQ(recorder.stream_rate.min(), 250'000);
}

TEST(RecorderTest, LatenciesCountFromTheIntendedSend) {
  Recorder recorder(Window(0, 1000));
  Request request = Streamed(100, 10, 1, 3, recorder);
  // The client turned to it 90 ms late: the caller waited nonetheless.
  request.intended_ns -= 90'000'000;
  recorder.Finished(request);
  EXPECT_EQ(recorder.ttft.max(), 100'000'000);
  EXPECT_EQ(recorder.send_lag.max(), 90'000'000);
}

TEST(RecorderTest, OnlyTheWindowCounts) {
  Recorder recorder(Window(100, 200));
  // Begins before the window, its events reach into it: 90, 100, 110 ms.
  recorder.Finished(Streamed(50, 40, 10, 3, recorder));
  EXPECT_EQ(recorder.requests, 0);
  EXPECT_EQ(recorder.window_events, 2);
  EXPECT_DOUBLE_EQ(recorder.window_tokens, 2);
  EXPECT_EQ(recorder.gap.count(), 2u);
  // Begins inside and ends behind it: 190, 200, 210 ms.
  recorder.Finished(Streamed(150, 40, 10, 3, recorder));
  EXPECT_EQ(recorder.requests, 1);
  EXPECT_EQ(recorder.e2e.count(), 1u);
  EXPECT_EQ(recorder.window_events, 3);
  // Behind it.
  recorder.Finished(Streamed(200, 1, 1, 3, recorder));
  EXPECT_EQ(recorder.requests, 1);
  EXPECT_EQ(recorder.all_succeeded, 3);
}

TEST(RecorderTest, EventsOfOneReadHaveNoGapBetweenThem) {
  Recorder recorder(Window(0, 1000));
  Request request = Streamed(0, 10, 1, 1, recorder);
  recorder.Events(request.outcome, 20'000'000, 5);
  EXPECT_EQ(recorder.gap.count(), 5u);
  EXPECT_EQ(recorder.gap.max(), 10'000'000);
  EXPECT_EQ(recorder.gap.Percentile(80), 0);
  EXPECT_EQ(request.outcome.events, 6);
}

TEST(RecorderTest, ARejectionIsNoSuccess) {
  Recorder recorder(Window(0, 1000));
  Request request;
  request.outcome.error = ErrorKind::kHttpStatus;
  request.outcome.code = 429;
  request.outcome.message = "queue full";
  recorder.Finished(request);
  request.outcome.code = 500;
  recorder.Finished(request);
  recorder.Finished(Streamed(0, 10, 1, 3, recorder));
  EXPECT_EQ(recorder.successes, 1);
  EXPECT_EQ(recorder.rejections, 1);
  EXPECT_EQ(recorder.errors.at("http 429"), 1);
  EXPECT_EQ(recorder.errors.at("http 500"), 1);
  EXPECT_EQ(recorder.error_examples.at("http 429"), "queue full");

  Report report;
  report.window_s = 1;
  FillReport(recorder, report);
  EXPECT_DOUBLE_EQ(*report.Value("errors"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*report.Value("rejected"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*report.Value("goodput"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(report.requests_per_s, 1);
}

TEST(RecorderTest, CountsShortAndEmptyRepliesAndThoseWithoutUsage) {
  Recorder recorder(Window(0, 1000));
  Request request = Streamed(0, 10, 1, 3, recorder);
  request.max_tokens = 4;
  recorder.Finished(request);
  EXPECT_EQ(recorder.short_replies, 1);
  request = Streamed(0, 10, 1, 3, recorder);
  request.outcome.usage = TokenUsage();
  recorder.Finished(request);
  EXPECT_EQ(recorder.without_usage, 1);
  EXPECT_EQ(recorder.window_uncounted_events, 3);
  Request empty;
  empty.outcome.end_ns = 1;
  empty.outcome.usage.present = true;
  recorder.Finished(empty);
  EXPECT_EQ(recorder.empty_replies, 1);
  EXPECT_EQ(recorder.ttft.count(), 2u);
}

TEST(RecorderTest, MergeIsAsIfOneHadMeasured) {
  Recorder one(Window(0, 1000));
  Recorder a(Window(0, 1000));
  Recorder b(Window(0, 1000));
  for (int i = 0; i < 10; ++i) {
    one.Finished(Streamed(i * 50, 10 + i, 2, 5, one));
    Recorder& part = i % 2 == 0 ? a : b;
    part.Finished(Streamed(i * 50, 10 + i, 2, 5, part));
  }
  a.Merge(b);
  Report x;
  Report y;
  x.window_s = y.window_s = 1;
  FillReport(one, x);
  FillReport(a, y);
  EXPECT_EQ(FormatJson(x), FormatJson(y));
}

TEST(ClientVerdictTest, NamesWhatHeldTheClientBack) {
  const std::vector<ClientThread> calm = {
      {.cpu_share = 0.3, .wait_share = 0.05, .busy_share = 0.3, .wake_delay_ns = 50e3}};
  const ClientEvidence fine = {
      .send_lag_p99 = 0.5e6, .loop_lag_p99 = 0.1e6, .latency_p50 = 5e6, .latency_p99 = 20e6};
  EXPECT_FALSE(JudgeClient(calm, fine).bottleneck);
  std::vector<ClientThread> threads = {calm[0], calm[0]};
  threads[1].busy_share = 0.95;
  EXPECT_TRUE(JudgeClient(threads, fine).bottleneck);
  threads = calm;
  threads[0].wait_share = 0.3;
  EXPECT_TRUE(JudgeClient(threads, fine).bottleneck);
  threads = calm;
  threads[0].wake_delay_ns = 1e6;
  EXPECT_TRUE(JudgeClient(threads, fine).bottleneck);
  ClientEvidence late = fine;
  late.send_lag_p99 = 2.1e6;
  EXPECT_TRUE(JudgeClient(calm, late).bottleneck);
  late = fine;
  late.loop_lag_p99 = 6e6;
  EXPECT_TRUE(JudgeClient(calm, late).bottleneck);
  // A spinning thread is always on its CPU, which says nothing.
  ClientEvidence spin = fine;
  spin.spin = true;
  threads = calm;
  threads[0].cpu_share = 0.99;
  EXPECT_FALSE(JudgeClient(threads, spin).bottleneck);
  threads[0].wait_share = 0.2;
  EXPECT_TRUE(JudgeClient(threads, spin).bottleneck);
}

}  // namespace
}  // namespace reticle::loadtest
