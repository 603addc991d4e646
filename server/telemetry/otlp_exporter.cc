#include "server/telemetry/otlp_exporter.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace reticle::server {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

size_t Spans(const std::vector<TracedRequest>& requests) {
  size_t spans = 0;
  for (const TracedRequest& request : requests) spans += request.spans();
  return spans;
}

// OTLP/HTTP, "Failures": these may be sent again.
bool IsTransient(int status) {
  return status == 429 || status == 502 || status == 503 || status == 504;
}

int64_t UnixNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OtlpExporter>> OtlpExporter::Create(OtlpOptions options,
                                                                   Clock& clock) {
  ASSIGN_OR_RETURN(HttpEndpoint endpoint, ParseHttpEndpoint(options.endpoint, "/v1/traces"));
  if (options.batch_requests < 1 || options.queue_requests < options.batch_requests) {
    return InvalidArgumentError("batch_requests is %d; it must be from 1 to queue_requests (%d)",
                                options.batch_requests, options.queue_requests);
  }
  std::unique_ptr<OtlpExporter> exporter(
      new OtlpExporter(std::move(options), std::move(endpoint), clock));
  exporter->thread_ = std::thread([raw = exporter.get()] {
    pthread_setname_np(pthread_self(), "otlp");
    raw->Loop();
  });
  return exporter;
}

OtlpExporter::OtlpExporter(OtlpOptions options, HttpEndpoint endpoint, Clock& clock)
    : options_(std::move(options)), clock_(clock), poster_(std::move(endpoint)) {}

OtlpExporter::~OtlpExporter() {
  end_ns_.store(clock_.NowNanos() + options_.farewell_ms * kNsPerMs);
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void OtlpExporter::Add(const RequestSummary& summary) {
  TracedRequest request(summary);
  bool full = false;
  {
    MutexLock lock(mutex_);
    if (queue_.size() >= options_.queue_requests) {
      dropped_.fetch_add(request.spans(), std::memory_order_relaxed);
      return;
    }
    queue_.push_back(std::move(request));
    full = queue_.size() == options_.batch_requests;
  }
  if (full) changed_.NotifyAll();
}

OtlpExporter::Counts OtlpExporter::counts() const {
  return {exported_.load(std::memory_order_relaxed), dropped_.load(std::memory_order_relaxed)};
}

std::vector<TracedRequest> OtlpExporter::Next() {
  const int64_t end_ns = clock_.NowNanos() + options_.interval_ms * kNsPerMs;
  MutexLock lock(mutex_);
  while (!stopping_ && queue_.size() < options_.batch_requests) {
    const int64_t left_ns = end_ns - clock_.NowNanos();
    if (left_ns > 0) {
      changed_.WaitFor(mutex_, left_ns);
    } else if (queue_.empty()) {
      changed_.WaitFor(mutex_, options_.interval_ms * kNsPerMs);
    } else {
      break;
    }
  }
  const size_t count = std::min(queue_.size(), options_.batch_requests);
  const auto middle = queue_.begin() + static_cast<ptrdiff_t>(count);
  std::vector<TracedRequest> batch(std::make_move_iterator(queue_.begin()),
                                   std::make_move_iterator(middle));
  queue_.erase(queue_.begin(), middle);
  return batch;
}

bool OtlpExporter::TimeIsUp() const { return clock_.NowNanos() >= end_ns_.load(); }

bool OtlpExporter::Pause(int64_t ms) {
  const int64_t end_ns = clock_.NowNanos() + ms * kNsPerMs;
  MutexLock lock(mutex_);
  while (!stopping_ && clock_.NowNanos() < end_ns) {
    changed_.WaitFor(mutex_, end_ns - clock_.NowNanos());
  }
  return !stopping_;
}

void OtlpExporter::Send(const std::vector<TracedRequest>& batch) {
  const std::string body = OtlpTraceJson(options_.resource, batch, UnixNanos() - clock_.NowNanos());
  int64_t pause_ms = options_.first_pause_ms;
  for (bool last = false; !TimeIsUp(); last = !Pause(pause_ms)) {
    const int64_t left_ms = (end_ns_.load() - clock_.NowNanos()) / kNsPerMs + 1;
    const absl::StatusOr<HttpPoster::Reply> reply =
        poster_.Post("application/json", body, std::min(options_.timeout_ms, left_ms));
    if (reply.ok() && reply->status / 100 == 2) {
      exported_.fetch_add(Spans(batch), std::memory_order_relaxed);
      return;
    }
    if (!reply.ok()) {
      LogWarning("traces: %s", reply.status().message());
    } else {
      LogWarning("traces: the collector answers %d", reply->status);
      if (!IsTransient(reply->status)) break;
      pause_ms = std::max<int64_t>(pause_ms, int64_t{reply->retry_after_s} * 1000);
    }
    if (last) break;
    pause_ms = std::min(pause_ms * 2, options_.longest_pause_ms);
  }
  dropped_.fetch_add(Spans(batch), std::memory_order_relaxed);
}

void OtlpExporter::Loop() {
  for (;;) {
    const std::vector<TracedRequest> batch = Next();
    if (!batch.empty()) {
      Send(batch);
      continue;
    }
    MutexLock lock(mutex_);
    if (stopping_ && queue_.empty()) return;
  }
}

}  // namespace reticle::server
