// One workload on one device profile: the real engine over the emulated card, on a virtual clock.
#ifndef RETICLE_SERVER_CLI_COMPARE_SIMULATION_H_
#define RETICLE_SERVER_CLI_COMPARE_SIMULATION_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::server::cli {

// What users do. Each has `sessions` sessions one after the other; a session is `calls` calls, each
// begun when the one before has ended, with a prompt that is longer by `growth` tokens than the one
// before and its output.
struct Scenario {
  const char* name;   // "chat"
  const char* title;  // for people
  uint32_t prompt_tokens;
  uint32_t output_tokens;
  uint32_t calls;
  uint32_t growth;
  uint32_t users;  // at once, in the loaded run
  uint32_t sessions;
};

// chat, coding, agent, batch.
std::span<const Scenario> Scenarios();
// Null when there is none.
const Scenario* FindScenario(std::string_view name);

struct Measured {
  uint64_t calls = 0;
  uint64_t prompt_tokens = 0;
  uint64_t output_tokens = 0;
  double seconds = 0;           // from the first call to the end of the last
  double ttft_ms = 0;           // mean over calls: from the call to its first token
  double per_user = 0;          // tokens/s: mean over calls, from the first token to the last
  double aggregate = 0;         // output tokens/s of all users
  double session_seconds = 0;   // mean: a user's wait for the answer to the last of the calls
  double joules_per_token = 0;  // of the whole device, per output token; 0: no time passed
};

// Numbers of the profile to replace, by name.
using Settings = std::vector<std::pair<std::string, std::string>>;

// The same profile, settings, scenario and users give the same result, to the last bit. Errors:
// what the driver says, as when the profile lacks a number that its timing needs. One at a time.
absl::StatusOr<Measured> Simulate(const std::string& profile, const Settings& settings,
                                  const Scenario& scenario, uint32_t users);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_COMPARE_SIMULATION_H_
