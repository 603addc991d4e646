// What a load test does: where to, how often, which prompts, how clients behave, what is good
// enough. Read from a TOML file, a built-in one or the user's, and overridden by flags; both know
// the same settings.
#ifndef RETICLE_LOADTEST_SCENARIO_H_
#define RETICLE_LOADTEST_SCENARIO_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/distribution.h"
#include "loadtest/slo.h"

namespace reticle::loadtest {

enum class ArrivalMode { kClosed, kPoisson, kGamma, kConstant, kRamp, kTrace };
enum class Api { kChat, kCompletions };
enum class PromptSource { kSynthetic, kShareGpt };

// Durations are ns.
struct Scenario {
  std::string name = "custom";
  std::string description;

  // ---- target
  std::string url = "http://127.0.0.1:8080";  // http://, https:// or grpc://
  std::string model;                          // empty: the first one that the server lists
  std::string api_key;                        // sent as a bearer token; empty: none
  Api api = Api::kChat;
  bool stream = true;
  std::string ca_file;     // PEM, for https; empty: the system's
  bool insecure = false;   // do not verify the certificate
  std::string extra_body;  // members of a JSON object, added to every request; HTTP only

  // ---- arrival
  ArrivalMode mode = ArrivalMode::kClosed;
  double rate = 1;         // conversations a second (ramp: at its start)
  double rate_end = 0;     // ramp: at its end
  double cv = 1;           // gamma: coefficient of variation of the times between arrivals
  int64_t users = 1;       // closed loop
  int64_t ramp_up_ns = 0;  // closed loop: users start spread over this time
  std::string trace;       // file
  double trace_speed = 1;  // 2: twice as fast as recorded

  // ---- prompts
  PromptSource source = PromptSource::kSynthetic;
  std::string dataset;  // ShareGPT's JSON
  Distribution prompt_tokens = Distribution::Fixed(64);
  Distribution output_tokens = Distribution::Fixed(64);  // 0: as the dataset or the server says
  bool ignore_eos = true;
  double temperature = 0;
  int64_t shared_prefixes = 0;       // how many different ones; 0: none
  int64_t shared_prefix_tokens = 0;  // length of each
  bool calibrate = true;             // measure how many tokens a word is

  // ---- conversations
  Distribution turns = Distribution::Fixed(1);
  Distribution think_ms =
      Distribution::Fixed(0);  // between turns, and between a user's conversations

  // ---- clients
  double disconnect_share = 0;                             // of requests that are dropped
  Distribution disconnect_after = Distribution::Fixed(1);  // events (gRPC: messages)
  double slow_share = 0;                                   // of requests that are read slowly
  int64_t slow_bytes_per_s = 4096;
  int64_t timeout_ns = 120'000'000'000;
  int64_t connect_timeout_ns = 5'000'000'000;
  int64_t max_connections = 0;  // open at once over all threads; 0: as many as needed
  int64_t retries = 0;          // of a rejected request, after its Retry-After
  int64_t threads = 1;
  bool spin = false;

  // ---- run
  int64_t duration_ns = 30'000'000'000;  // of sending, warm-up included
  int64_t requests = 0;                  // stop sending after this many; 0: by time alone
  int64_t warmup_ns = 0;
  int64_t drain_ns = 30'000'000'000;  // for what still runs at the end
  int64_t seed = 1;

  std::vector<std::string> slo_texts;
  SloSet slos;  // of slo_texts, after Validate()

  // INVALID_ARGUMENT naming the first setting that is out of its limits. Parses the SLOs.
  absl::Status Validate();
};

// One setting: `--section-less` flag, `section.name` key in a file, help, and how text sets it.
struct Setting {
  std::string flag;
  std::string key;
  std::string help;
  bool is_flag = false;  // a boolean: "--x" and "--no-x"
  bool is_list = false;  // may be given several times; the first of a source replaces the list
  std::string default_text;
  std::function<absl::Status(std::string_view)> set;
};
// `scenario` must outlive the result. `default_text` is its present value.
std::vector<Setting> ScenarioSettings(Scenario& scenario);

// Sets what the TOML text says; `origin` names it in messages, with the line.
absl::Status LoadScenario(std::string_view toml, const std::string& origin, Scenario& scenario);

// `name_or_path`: a built-in scenario's name, or a file (what holds a slash or ends in .toml).
absl::Status LoadScenarioByName(const std::string& name_or_path, Scenario& scenario);

struct BuiltInScenario {
  std::string_view name;
  std::string_view toml;
};
// By name. Linked into the binary from loadtest/scenarios/.
const std::vector<BuiltInScenario>& BuiltInScenarios();

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_SCENARIO_H_
