// The options of `reticle serve`, from a TOML file and the command line.
#ifndef RETICLE_SERVER_CLI_SERVE_OPTIONS_H_
#define RETICLE_SERVER_CLI_SERVE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cli/command_line.h"
#include "server/http/http_server.h"

namespace reticle::server::cli {

// An adapter to load at start: "NAME=FILE" or "NAME=FILE:SCALE".
struct AdapterOption {
  std::string name;
  std::string path;
  float scale = 1;
};
// A trailing ":NUMBER" is the scale; other colons belong to the path.
absl::StatusOr<AdapterOption> ParseAdapter(const std::string& text);

struct ServeOptions {
  // Model.
  std::string model;     // GGUF file or device image; empty: the embedded house model
  std::string model_id;  // empty: "house", or the file's name without its ending
  std::vector<std::string> aliases;
  std::vector<std::string> adapters;  // NAME=FILE[:SCALE]

  // Devices: each is a group of its own. A built-in driver, a profile of the emulated card, or the
  // path of a driver library (.so). Empty: taalas-hc1 for the house model, for a device image and
  // where `content` or `clock` ask for an emulated device; cpu for a GGUF file.
  std::vector<std::string> devices;
  uint32_t cards = 0;  // of each group; 0: as many as the device has
  uint32_t device_index = 0;
  // name=value for every driver, DEVICE:name=value for that one.
  std::vector<std::string> device_options;
  std::string content;              // functional, replay; empty: the driver's choice
  std::string clock;                // wall, virtual; empty: the driver's choice
  uint32_t threads = 0;             // compute threads; 0: the driver's choice
  std::string kv_type = "default";  // default, f16, q8_0
  std::string kv_size = "0";        // bytes, or with KiB, MiB, GiB; 0: the driver's choice
  uint32_t kv_block_tokens = 0;     // 0: the driver's choice
  uint32_t context = 0;             // tokens; 0: the model's own
  uint32_t max_sequences = 0;       // that run at once; 0: the driver's choice

  // Scheduling.
  uint32_t max_waiting = 1024;
  uint32_t step_tokens = 0;  // 0: the device's
  uint32_t run_ahead = 0;    // 0: as the device allows
  // auto: an HTTP thread drives a device that is cheap to poll; own: always a thread for a device.
  std::string engine_thread = "auto";
  bool prefix_cache = true;

  // Lost devices.
  int64_t watchdog_ms = -1;  // -1: 1 s for a device that is cheap to poll, else 300 s; 0: none
  int64_t failover_timeout_ms = 30'000;  // that a request waits for any device to come back
  uint32_t fence_after = 8;              // losses within a minute; 0: never

  // Fronts. "HOST:PORT", "PORT" (on 127.0.0.1) or "none".
  std::string http = "127.0.0.1:8080";
  std::string grpc = "127.0.0.1:50051";
  http::HttpOptions http_options;  // host and port come from `http`
  bool public_metrics = true;      // else the operator's listener alone has GET /metrics
  std::string admin = "none";      // likewise; the operator's listener
  std::string admin_token;         // that its callers must bear; needed beyond loopback
  std::string admin_token_file;    // a file that holds it

  // Accounts: keys, tiers, quotas. Without them everybody is served.
  bool tenants = false;
  std::string tenants_store = "reticle-tenants.db";  // or postgresql://...
  std::string tenants_secret;                        // empty: beside the store
  std::vector<std::string> tier_limits;              // "free.requests_per_minute=30"
  int64_t auto_approve_per_day = 0;
  int64_t applications_per_hour = 5;  // of one address
  std::string redis;

  std::vector<std::string> metrics_buckets;  // "NAME=BOUND,BOUND,..."

  // Life of the process.
  int64_t drain_timeout_s = 30;
  int64_t drain_delay_ms = 0;  // between going unready and taking nothing new

  // Logs and traces.
  std::string log_level = "info";     // debug, info, warning, error, off
  std::string log_format = "logfmt";  // text, logfmt, json
  bool log_requests = true;
  bool log_prompts = false;
  std::string otlp_endpoint;  // http://HOST:PORT of a collector; empty: no traces are sent
  double trace_ratio = 1;     // of the traces that begin here

  // Sockets that listen already; -1: none.
  int grpc_fd = -1;
  int admin_fd = -1;

  // What was parsed, so that it can be again.
  std::vector<std::string> arguments;

  std::vector<AdapterOption> parsed_adapters;  // from `adapters`

  // INVALID_ARGUMENT naming the first option that is out of its limits.
  absl::Status Validate() const;
};

// `arguments`: those behind "serve". The TOML file that --config names is read first, then the
// flags. On success `options` is filled and nullopt comes back.
std::optional<CommandLineExit> ParseServeArguments(const std::vector<std::string>& arguments,
                                                   ServeOptions& options);

// An option that two sets of options give differently.
struct OptionChange {
  std::string flag;         // "--log-level"
  bool reloadable = false;  // whether a running server can take it over
};
std::vector<OptionChange> Differences(ServeOptions before, ServeOptions after);
// Sets every reloadable option of `into` as `from` has it.
void TakeReloadable(const ServeOptions& from, ServeOptions& into);

struct HostPort {
  std::string host;
  uint16_t port = 0;
};
// "HOST:PORT", "[V6]:PORT", ":PORT" or "PORT"; without a host it is 127.0.0.1.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// "0", "1048576", "512MiB", "2GiB".
absl::StatusOr<uint64_t> ParseByteSize(const std::string& text);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_SERVE_OPTIONS_H_
