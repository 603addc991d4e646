// One run of a fleet of emulated cards under given traffic: the real dispatcher and engines over
// the cards of one profile, on a virtual clock.
#ifndef RETICLE_SERVER_CLI_PLAN_SIMULATION_H_
#define RETICLE_SERVER_CLI_PLAN_SIMULATION_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cli/plan_traffic.h"

namespace reticle::server::cli {

struct FleetOptions {
  std::string profile;
  // Numbers of the profile to replace, by name.
  std::vector<std::pair<std::string, std::string>> settings;
  uint32_t cards = 1;
  uint32_t max_waiting = 1024;  // of each engine, as `serve --max-waiting`
  uint32_t run_ahead = 0;       // as `serve --run-ahead`
  // KV memory of a token in the model; 65,536 for Llama 3.1 8B with 8-bit K and V. 0: memory sets
  // no limit. It is the device option replay_kv_bytes of `serve --content replay`.
  uint32_t kv_bytes_per_token = 65'536;
  // That parsing, tokenising and sockets add to each request before its first token.
  int64_t host_ns = 0;
};

// What became of one request.
struct PlannedOutcome {
  enum class Kind : uint8_t {
    kServed,
    kRefused,  // every queue was full
    kTooLong,  // prompt and output pass the context limit
  };
  Kind kind = Kind::kServed;
  uint32_t output_tokens = 0;
  int64_t ttft_ns = 0;  // from the arrival
  double tpot_ns = 0;   // (end to end - TTFT) / (tokens - 1); 0 for one token
  int64_t e2e_ns = 0;
};

struct FleetRun {
  std::vector<PlannedOutcome> outcomes;  // of the measured requests, in the order of arrival
  // From the arrival of the first measured request to that of the last.
  double seconds = 0;
  // Within them:
  double tokens_per_second = 0;  // output, of all cards
  double busy_share = 0;         // of the cards' time with at least one request on the card
  double watts = 0;              // of all cards, on average
  double kv_share = 0;           // of the KV memory in use, on average over arrivals
  double waiting = 0;            // requests that wait for admission, likewise
};

struct RunLength {
  uint64_t seed = 1;
  uint32_t warm_up = 0;      // requests that are not measured, ahead of the others
  uint32_t measured = 1000;  // at most; a trace may end before
};

// Open loop: requests come when they come. Behind the measured ones further ones come, so that the
// last are served under the same load. The same arguments give the same run to the nanosecond. Any
// thread, several at once. Errors: what the driver says, as when the profile lacks a number that
// its timing needs.
absl::StatusOr<FleetRun> SimulateFleet(const FleetOptions& options, const PlanTraffic& traffic,
                                       const RunLength& length);
// The same requests on one card, each begun when the one before has ended: what no number of cards
// can better.
absl::StatusOr<FleetRun> SimulateAlone(const FleetOptions& options, const PlanTraffic& traffic,
                                       const RunLength& length);

// Prompt and output together that one card of the profile takes.
absl::StatusOr<uint32_t> ContextLimitOf(const FleetOptions& options);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_SIMULATION_H_
