// Sends spans of finished requests to a collector, by OTLP over HTTP with JSON.
//
// One thread gathers them for `interval_ms`, or until there is a batch, and posts them. A collector
// that does not answer, or asks for patience (429, 502, 503, 504), is tried again after a growing
// pause; what does not fit into the queue meanwhile is dropped and counted. Nothing of it is ever
// waited for by whoever serves.
#ifndef RETICLE_SERVER_TELEMETRY_OTLP_EXPORTER_H_
#define RETICLE_SERVER_TELEMETRY_OTLP_EXPORTER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/telemetry/http_poster.h"
#include "server/telemetry/otlp_json.h"

namespace reticle::server {

struct OtlpOptions {
  std::string endpoint;  // "http://HOST:PORT"; "/v1/traces" unless it has a path
  OtlpResource resource;
  size_t queue_requests = 4096;
  size_t batch_requests = 512;
  int64_t interval_ms = 1000;
  int64_t timeout_ms = 5000;     // of one post
  int64_t first_pause_ms = 500;  // after a failure; doubles up to longest_pause_ms
  int64_t longest_pause_ms = 30'000;
  int64_t farewell_ms = 2000;  // that the destructor may take to send what is left
};

// Thread-safe.
class OtlpExporter {
 public:
  // `clock` is the summaries'; it must outlive the exporter. INVALID_ARGUMENT for the endpoint.
  static absl::StatusOr<std::unique_ptr<OtlpExporter>> Create(OtlpOptions options, Clock& clock);
  ~OtlpExporter();
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  void Add(const RequestSummary& summary);

  struct Counts {
    uint64_t exported = 0;  // spans that the collector has
    uint64_t dropped = 0;   // spans that it will never have
  };
  Counts counts() const;

 private:
  OtlpExporter(OtlpOptions options, HttpEndpoint endpoint, Clock& clock);
  void Loop();
  // Waits for a batch. Empty: nothing is left and this ends.
  std::vector<TracedRequest> Next();
  void Send(const std::vector<TracedRequest>& batch);
  // Whether it took that long without being told to end.
  bool Pause(int64_t ms);
  bool TimeIsUp() const;

  const OtlpOptions options_;
  Clock& clock_;
  std::atomic<uint64_t> exported_{0};
  std::atomic<uint64_t> dropped_{0};

  Mutex mutex_;
  CondVar changed_;
  std::vector<TracedRequest> queue_ RETICLE_GUARDED_BY(mutex_);
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> end_ns_{INT64_MAX};

  HttpPoster poster_;   // the thread's
  std::thread thread_;  // last: it uses the rest
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_TELEMETRY_OTLP_EXPORTER_H_
