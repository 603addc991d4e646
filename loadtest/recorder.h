// What one client thread measures, on the hot path by plain increments.
#ifndef RETICLE_LOADTEST_RECORDER_H_
#define RETICLE_LOADTEST_RECORDER_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "loadtest/histogram.h"
#include "loadtest/request.h"
#include "loadtest/slo.h"

namespace reticle::loadtest {

// Numbers that the progress line reads while the run goes on. Written by the owning thread.
struct LiveCounters {
  std::atomic<int64_t> sent{0};
  std::atomic<int64_t> succeeded{0};
  std::atomic<int64_t> failed{0};
  std::atomic<int64_t> events{0};
  std::atomic<int64_t> ttft_p50_ns{0};  // since the last publication that had any
  std::atomic<int64_t> ttft_p99_ns{0};
  std::atomic<int64_t> loop_lag_p99_ns{0};
};

// One interval of the run, by the time at which things happened.
struct Interval {
  int64_t sent = 0;
  int64_t succeeded = 0;
  int64_t failed = 0;
  int64_t events = 0;
  Histogram ttft{5, 40};
  Histogram gap{5, 40};
};

// Not thread-safe but for live(). Latencies of a request count when its intended send lies in the
// window, gaps and events when they come inside it.
class Recorder {
 public:
  struct Options {
    int64_t start_ns = 0;
    int64_t window_begin_ns = 0;
    int64_t window_end_ns = INT64_MAX;
    int64_t interval_ns = 1'000'000'000;
    RequestSlo slo;
    bool expect_exact_length = false;  // a reply with fewer tokens than asked for is counted
  };
  explicit Recorder(const Options& options);

  bool InWindow(int64_t at_ns) const {
    return at_ns >= options_.window_begin_ns && at_ns < options_.window_end_ns;
  }
  const Options& options() const { return options_; }

  // `count` > 0 events with new text of a stream came at `now_ns`, in one read. The first has the
  // time since the stream's last event as its gap, those that came with it have none.
  void Events(Outcome& outcome, int64_t now_ns, int64_t count) {
    const bool in_window = InWindow(now_ns);
    if (outcome.first_ns == 0) {
      outcome.first_ns = now_ns;
    } else if (in_window) {
      gap.Record(now_ns - outcome.last_ns);
      CurrentInterval(now_ns).gap.Record(now_ns - outcome.last_ns);
    }
    if (in_window) {
      if (count > 1) {
        gap.Record(0, static_cast<uint64_t>(count - 1));
        CurrentInterval(now_ns).gap.Record(0, static_cast<uint64_t>(count - 1));
      }
      outcome.events_in_window += count;
      window_events += count;
    }
    outcome.last_ns = now_ns;
    outcome.events += count;
    all_events += count;
    CurrentInterval(now_ns).events += count;
  }

  void Sent(const Request& request);
  // The request is over, with success or not.
  void Finished(const Request& request);
  // It was given up because the run was stopped: what came counts, the request does not.
  void Interrupted(const Request& request);
  // A refused request that will be sent again.
  void Retried() { ++retries; }
  // A conversation of several turns ended well.
  void ConversationDone(int64_t intended_ns, int64_t end_ns, int64_t turns);
  // The loop came back `lag_ns` after it should have.
  void LoopLag(int64_t lag_ns, int64_t now_ns) {
    if (InWindow(now_ns)) loop_lag.Record(lag_ns);
    lag_since_.Record(lag_ns);
  }

  // Brings the live counters up to date.
  void Publish();
  const LiveCounters& live() const { return live_; }

  // Adds what `other` measured. Both must have the same options.
  void Merge(const Recorder& other);

  // ---- inside the window
  Histogram ttft;          // intended send to first text, ns
  Histogram gap;           // between events of a stream, ns
  Histogram tpot;          // (e2e - ttft) / (tokens - 1), ns
  Histogram e2e;           // intended send to the end, ns
  Histogram send_lag;      // from the intended send until the client turned to it, ns
  Histogram conversation;  // first intended send to the last end, conversations of several turns
  Histogram stream_rate;   // tokens a second of a stream, in thousandths
  Histogram loop_lag;      // ns
  int64_t requests = 0;
  int64_t successes = 0;
  int64_t good = 0;           // successes that meet every bound of the request SLO
  int64_t rejections = 0;     // 429 and 503, RESOURCE_EXHAUSTED and UNAVAILABLE
  int64_t disconnects = 0;    // on purpose
  int64_t empty_replies = 0;  // successes without any text
  int64_t short_replies = 0;  // successes with fewer tokens than asked for, when that is a fault
  int64_t without_usage = 0;  // successes whose tokens are not known
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;        // of successes
  int64_t completion_events = 0;        // of the same
  int64_t window_events = 0;            // that came inside the window, of any request
  double window_tokens = 0;             // likewise, by the share of each reply's events that did
  int64_t window_uncounted_events = 0;  // of window_events, those of replies without usage
  int64_t bytes = 0;
  std::map<std::string, int64_t> errors;  // by kind
  std::map<std::string, std::string> error_examples;
  std::map<std::string, int64_t> finish_reasons;

  // ---- the whole run
  int64_t all_sent = 0;
  int64_t all_finished = 0;
  int64_t all_succeeded = 0;
  int64_t all_events = 0;
  int64_t retries = 0;
  int64_t connections = 0;
  int64_t reconnects = 0;  // a kept-alive connection had gone; sent again on a new one
  std::vector<Interval> intervals;

 private:
  Interval& CurrentInterval(int64_t now_ns) {
    const int64_t index = (now_ns - options_.start_ns) / options_.interval_ns;
    if (static_cast<size_t>(std::max<int64_t>(index, 0)) >= intervals.size()) Grow(index);
    return intervals[static_cast<size_t>(
        std::clamp<int64_t>(index, 0, static_cast<int64_t>(intervals.size()) - 1))];
  }
  void Grow(int64_t index);
  void CountWindowTokens(const Outcome& outcome);
  void FinishedInWindow(const Request& request);

  Options options_;
  Histogram ttft_since_{6, 40};
  Histogram lag_since_{6, 40};
  int64_t all_failed_ = 0;
  LiveCounters live_;
};

// "timeout", "http 429", "grpc 14", ...
std::string ErrorName(const Outcome& outcome);
// The server said that it has no room: a rejection, as opposed to a failure.
bool IsRejection(const Outcome& outcome);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_RECORDER_H_
