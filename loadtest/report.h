// The result of a run, as numbers and as text.
#ifndef RETICLE_LOADTEST_REPORT_H_
#define RETICLE_LOADTEST_REPORT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loadtest/histogram.h"
#include "loadtest/recorder.h"
#include "loadtest/slo.h"

namespace reticle::loadtest {

// A distribution of measured values; the unit is the metric's.
struct Summary {
  uint64_t count = 0;
  double min = 0;
  double mean = 0;
  double max = 0;
  std::vector<std::pair<double, double>> percentiles;  // (percent, value), ascending
  // (share of values at most this, value), for charts: dense where the distribution is.
  std::vector<std::pair<double, double>> curve;

  double At(double percent) const;  // of the stored percentiles, the first at or above
};
// Values are multiplied by `scale`.
Summary Summarize(const Histogram& histogram, double scale);

// What one client thread spent inside the window, and whether it kept up.
struct ClientThread {
  double cpu_share = 0;      // of one core
  double wait_share = 0;     // ready to run, but another thread had the CPU
  double busy_share = 0;     // handling events
  double wake_delay_ns = 0;  // from being ready to having a CPU, on average
};
struct ClientVerdict {
  bool bottleneck = false;
  std::vector<std::string> reasons;  // why, a sentence each
};
// What the verdict rests on, besides the threads. Times are ns.
struct ClientEvidence {
  bool spin = false;
  double send_lag_p99 = 0;  // of the client's own lateness in sending
  double loop_lag_p99 = 0;  // of events' waiting in the client
  double latency_p50 = 0;   // TTFT, or of whole replies where there are no streams
  double latency_p99 = 0;
};
// The client was the bottleneck when a thread
//   had work for 90 % of the time: busy, or on a CPU or waiting for one;
//   waited for a CPU for 25 % of the time, or 10 % where it spins;
//   was given a CPU late, on average by 10 % of the median latency and 100 us;
//   sent the slowest 1 % of requests late by 10 % of the p99 latency and 1 ms;
//   let the slowest 1 % of events wait for 10 % of the median latency and 5 ms.
ClientVerdict JudgeClient(const std::vector<ClientThread>& threads, const ClientEvidence& evidence);

struct IntervalReport {
  double begin_s = 0;
  int64_t sent = 0;
  int64_t succeeded = 0;
  int64_t failed = 0;
  double tokens_per_s = 0;
  double ttft_p50_ns = 0;
  double ttft_p99_ns = 0;
  double gap_p50_ns = 0;
  double gap_p99_ns = 0;
};

// Times are ns unless the name says otherwise.
struct Report {
  std::string name;
  std::string description;
  std::string url;
  std::string model;
  std::string version;
  int64_t started_unix_s = 0;
  std::vector<std::pair<std::string, std::string>> settings;  // flag, value
  std::vector<std::string> notes;

  bool interrupted = false;
  double window_begin_s = 0;  // the warm-up's end
  double window_s = 0;        // that was measured
  double wall_s = 0;          // of the whole run

  // By name: ttft, itl, tpot, e2e, conversation, send_lag, loop_lag (ns); stream_rate (tokens/s).
  std::map<std::string, Summary, std::less<>> summaries;

  int64_t requests = 0;
  int64_t successes = 0;
  int64_t good = 0;
  int64_t rejections = 0;
  int64_t disconnects = 0;
  int64_t empty_replies = 0;
  int64_t short_replies = 0;
  int64_t without_usage = 0;
  int64_t retries = 0;
  int64_t connections = 0;
  int64_t reconnects = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t completion_events = 0;
  std::map<std::string, int64_t> errors;
  std::map<std::string, std::string> error_examples;
  std::map<std::string, int64_t> finish_reasons;

  double requests_per_s = 0;  // successes, by their intended send in the window
  double goodput_per_s = 0;
  double output_tokens_per_s = 0;  // received inside the window
  double events_per_s = 0;
  double chunks_per_token = 0;

  double interval_s = 1;
  std::vector<IntervalReport> intervals;

  bool spin = false;
  std::vector<ClientThread> threads;
  double client_cpu_s = 0;  // of the whole process, inside the window
  ClientVerdict client;
  std::optional<double> server_cpu_s;  // inside the window, when its process is known

  std::vector<SloVerdict> slos;

  // The value of a metric as SLOs name it; nothing when the run has none.
  std::optional<double> Value(std::string_view metric) const;
  bool AllSlosMet() const;
};

// Fills everything that the merged measurements give, `window_s` being set.
void FillReport(const Recorder& recorder, Report& report);

// For a terminal; with `color`, verdicts are coloured.
std::string FormatTable(const Report& report, bool color);
// One JSON object; times in ms.
std::string FormatJson(const Report& report);
// A page of its own that needs no other file and no network.
std::string FormatPage(const Report& report);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_REPORT_H_
