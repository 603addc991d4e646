#include "loadtest/recorder.h"

#include "absl/strings/str_format.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kMaxIntervals = 4096;

template <typename T>
void AddCounts(std::map<std::string, T>& into, const std::map<std::string, T>& from) {
  for (const auto& [name, count] : from) into[name] += count;
}

const char* FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kOther:
      return "other";
  }
  return "none";
}

void Store(std::atomic<int64_t>& to, int64_t value) { to.store(value, std::memory_order_relaxed); }

}  // namespace

std::string ErrorName(const Outcome& outcome) {
  switch (outcome.error) {
    case ErrorKind::kNone:
      return "none";
    case ErrorKind::kConnect:
      return "no connection";
    case ErrorKind::kTls:
      return "tls";
    case ErrorKind::kTimeout:
      return "timeout";
    case ErrorKind::kClosed:
      return outcome.events > 0 ? "closed mid-stream" : "closed early";
    case ErrorKind::kHttpStatus:
      return absl::StrFormat("http %d", outcome.code);
    case ErrorKind::kGrpcStatus:
      return absl::StrFormat("grpc %d", outcome.code);
    case ErrorKind::kErrorEvent:
      return "error event";
    case ErrorKind::kMalformed:
      return "malformed reply";
    case ErrorKind::kUnfinished:
      return "unfinished";
  }
  return "none";
}

bool IsRejection(const Outcome& outcome) {
  if (outcome.error == ErrorKind::kHttpStatus) return outcome.code == 429 || outcome.code == 503;
  constexpr int kResourceExhausted = 8;
  constexpr int kUnavailable = 14;
  return outcome.error == ErrorKind::kGrpcStatus &&
         (outcome.code == kResourceExhausted || outcome.code == kUnavailable);
}

Recorder::Recorder(const Options& options) : options_(options) { intervals.reserve(64); }

void Recorder::Grow(int64_t index) {
  intervals.resize(static_cast<size_t>(std::clamp<int64_t>(index + 1, 1, kMaxIntervals)));
}

void Recorder::Sent(const Request& request) {
  ++all_sent;
  ++CurrentInterval(request.outcome.started_ns).sent;
}

void Recorder::CountWindowTokens(const Outcome& outcome) {
  if (outcome.events_in_window == 0) return;
  if (!outcome.usage.present && outcome.tokens_seen == 0) {
    window_uncounted_events += outcome.events_in_window;
    return;
  }
  const int64_t tokens =
      outcome.usage.present ? outcome.usage.completion_tokens : outcome.tokens_seen;
  window_tokens += static_cast<double>(tokens) * static_cast<double>(outcome.events_in_window) /
                   static_cast<double>(outcome.events);
}

void Recorder::Interrupted(const Request& request) { CountWindowTokens(request.outcome); }

void Recorder::Finished(const Request& request) {
  const Outcome& outcome = request.outcome;
  ++all_finished;
  Interval& interval = CurrentInterval(outcome.end_ns);
  if (outcome.error == ErrorKind::kNone) {
    ++all_succeeded;
    ++interval.succeeded;
    if (outcome.first_ns != 0) {
      interval.ttft.Record(outcome.first_ns - request.intended_ns);
      ttft_since_.Record(outcome.first_ns - request.intended_ns);
    }
  } else if (outcome.error != ErrorKind::kUnfinished) {
    ++interval.failed;
    ++all_failed_;
  }
  CountWindowTokens(outcome);
  if (InWindow(request.intended_ns)) FinishedInWindow(request);
}

void Recorder::FinishedInWindow(const Request& request) {
  const Outcome& outcome = request.outcome;
  ++requests;
  bytes += outcome.bytes;
  if (outcome.started_ns != 0) send_lag.Record(outcome.started_ns - request.intended_ns);
  if (outcome.error != ErrorKind::kNone) {
    const std::string name = ErrorName(outcome);
    ++errors[name];
    if (!outcome.message.empty()) error_examples.try_emplace(name, outcome.message);
    if (IsRejection(outcome)) ++rejections;
    return;
  }
  if (outcome.disconnected) {
    ++disconnects;
    if (outcome.first_ns != 0) ttft.Record(outcome.first_ns - request.intended_ns);
    return;
  }
  ++successes;
  ++finish_reasons[FinishName(outcome.finish)];
  const int64_t e2e_ns = outcome.end_ns - request.intended_ns;
  e2e.Record(e2e_ns);
  bool is_good = !options_.slo.e2e_ns || e2e_ns <= *options_.slo.e2e_ns;

  const bool counted = outcome.usage.present || outcome.tokens_seen > 0;
  const int64_t tokens =
      outcome.usage.present ? outcome.usage.completion_tokens : outcome.tokens_seen;
  if (!counted) ++without_usage;
  prompt_tokens += outcome.usage.prompt_tokens;
  cached_tokens += outcome.usage.cached_tokens;
  if (counted) {
    completion_tokens += tokens;
    completion_events += outcome.events;
  }
  if (options_.expect_exact_length && counted && request.max_tokens > 0 &&
      tokens < request.max_tokens) {
    ++short_replies;
  }
  if (outcome.first_ns == 0) {
    ++empty_replies;
    is_good = is_good && !options_.slo.ttft_ns;
  } else if (request.stream) {
    const int64_t ttft_ns = outcome.first_ns - request.intended_ns;
    ttft.Record(ttft_ns);
    is_good = is_good && (!options_.slo.ttft_ns || ttft_ns <= *options_.slo.ttft_ns);
    const int64_t n = counted ? tokens : outcome.events;
    if (n > 1) {
      const int64_t tpot_ns = (e2e_ns - ttft_ns) / (n - 1);
      tpot.Record(tpot_ns);
      is_good = is_good && (!options_.slo.tpot_ns || tpot_ns <= *options_.slo.tpot_ns);
      if (const int64_t span_ns = outcome.last_ns - outcome.first_ns; span_ns > 0) {
        stream_rate.Record(
            static_cast<int64_t>(static_cast<double>(n - 1) * 1e12 / static_cast<double>(span_ns)));
      }
    }
  }
  if (is_good) ++good;
}

void Recorder::ConversationDone(int64_t intended_ns, int64_t end_ns, int64_t turns) {
  if (turns > 1 && InWindow(intended_ns)) conversation.Record(end_ns - intended_ns);
}

void Recorder::Publish() {
  Store(live_.sent, all_sent);
  Store(live_.succeeded, all_succeeded);
  Store(live_.failed, all_failed_);
  Store(live_.events, all_events);
  if (ttft_since_.count() > 0) {
    Store(live_.ttft_p50_ns, ttft_since_.Percentile(50));
    Store(live_.ttft_p99_ns, ttft_since_.Percentile(99));
    ttft_since_.Clear();
  }
  if (lag_since_.count() > 0) {
    Store(live_.loop_lag_p99_ns, lag_since_.Percentile(99));
    lag_since_.Clear();
  }
}

void Recorder::Merge(const Recorder& other) {
  ttft.Merge(other.ttft);
  gap.Merge(other.gap);
  tpot.Merge(other.tpot);
  e2e.Merge(other.e2e);
  send_lag.Merge(other.send_lag);
  conversation.Merge(other.conversation);
  stream_rate.Merge(other.stream_rate);
  loop_lag.Merge(other.loop_lag);
  requests += other.requests;
  successes += other.successes;
  good += other.good;
  rejections += other.rejections;
  disconnects += other.disconnects;
  empty_replies += other.empty_replies;
  short_replies += other.short_replies;
  without_usage += other.without_usage;
  prompt_tokens += other.prompt_tokens;
  cached_tokens += other.cached_tokens;
  completion_tokens += other.completion_tokens;
  completion_events += other.completion_events;
  window_events += other.window_events;
  window_tokens += other.window_tokens;
  window_uncounted_events += other.window_uncounted_events;
  bytes += other.bytes;
  AddCounts(errors, other.errors);
  error_examples.insert(other.error_examples.begin(), other.error_examples.end());
  AddCounts(finish_reasons, other.finish_reasons);
  all_sent += other.all_sent;
  all_finished += other.all_finished;
  all_succeeded += other.all_succeeded;
  all_failed_ += other.all_failed_;
  all_events += other.all_events;
  retries += other.retries;
  connections += other.connections;
  reconnects += other.reconnects;
  if (intervals.size() < other.intervals.size()) intervals.resize(other.intervals.size());
  for (size_t i = 0; i < other.intervals.size(); ++i) {
    Interval& into = intervals[i];
    const Interval& from = other.intervals[i];
    into.sent += from.sent;
    into.succeeded += from.succeeded;
    into.failed += from.failed;
    into.events += from.events;
    into.ttft.Merge(from.ttft);
    into.gap.Merge(from.gap);
  }
}

}  // namespace reticle::loadtest
