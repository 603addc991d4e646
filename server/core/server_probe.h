// What the server tells about itself. The exporter implements it; the server never sees the metrics
// library.
#ifndef RETICLE_SERVER_CORE_SERVER_PROBE_H_
#define RETICLE_SERVER_CORE_SERVER_PROBE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "server/core/latency_ledger.h"

namespace reticle::server {

// How one choice ended, as clients see it. (A stop string ends the engine's sequence by
// cancellation; here it is kStop.)
enum class Outcome : uint8_t {
  kStop,      // stop id or stop string
  kLength,    // max_tokens or the context limit
  kAbort,     // the client went away or cancelled
  kDeadline,  // the request's deadline passed
  kError,
};
// "stop", "length", "abort", "deadline", "error".
std::string_view OutcomeName(Outcome outcome);

// One request that was admitted, at its end. Times are ns on the server's clock.
struct RequestRecord {
  std::string_view model;
  std::string_view tier;             // of its caller's account; "none" without accounts
  std::string_view front;            // "http" or "grpc"
  Outcome outcome = Outcome::kStop;  // of the request as a whole: the worst of its choices
  uint32_t n = 1;
  uint32_t max_tokens = 0;
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t output_tokens = 0;
  uint32_t longest_choice = 0;         // output tokens of the longest one
  int64_t e2e_ns = 0;                  // arrival to end
  int64_t time_to_first_token_ns = 0;  // arrival to the first token handed to the front; 0: none
};

// Calls come from any thread, a few for each request and never for a token; they must be quick.
class ServerProbe {
 public:
  virtual ~ServerProbe() = default;
  // A reply is complete, or its connection broke. `handler` is the route's pattern
  // ("/v1/chat/completions"; "unmatched" for the rest), `status` 499 when the client went away.
  virtual void OnHttpRequest(std::string_view handler, std::string_view method, int status,
                             int64_t duration_ns) {}
  // Likewise for a gRPC call; `code` as grpc::StatusCode.
  virtual void OnGrpcRequest(std::string_view method, int code, int64_t duration_ns) {}
  // A request was handed to a device's queue; OnRequestFinished follows.
  virtual void OnRequestAdmitted(std::string_view model) {}
  // One choice ended.
  virtual void OnChoiceFinished(std::string_view model, Outcome outcome) {}
  virtual void OnRequestFinished(const RequestRecord& record) {}
  // A generation was refused before or at admission, for another reason than the two below.
  virtual void OnRequestRefused(std::string_view tier, absl::StatusCode code) {}
  // A request came without a key, or with one that is not good.
  virtual void OnKeyRefused() {}
  // A limit of the caller's tier ("requests_per_minute", ...) stood in the way.
  virtual void OnQuotaRefused(std::string_view tier, std::string_view limit) {}
  // Whether quotas that should be shared are counted by this process alone; told again and again.
  virtual void OnQuotaDegraded(bool degraded) {}
  // Whether the store of the accounts fails; told when it changes.
  virtual void OnAccountsStoreFailed(bool failed) {}
  // Tokens of streams whose bytes the sockets have: what the server added to each. In bulk.
  virtual void OnTokensHandedOver(const AddedLatency& added) {}
  // `count` more log lines ("log_lines") or trace spans ("spans") went missing.
  virtual void OnTelemetryLost(std::string_view what, uint64_t count) {}
  // Connections open now, on all listeners of a front together.
  virtual void OnConnectionsChanged(std::string_view front, int64_t open) {}
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_SERVER_PROBE_H_
