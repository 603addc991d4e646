// A whole run: finds the server, starts the client threads, shows how it goes, and reports.
#ifndef RETICLE_LOADTEST_RUNNER_H_
#define RETICLE_LOADTEST_RUNNER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "loadtest/report.h"
#include "loadtest/scenario.h"

namespace reticle::loadtest {

struct RunOptions {
  // Set from a signal handler to end the run early; what was measured is reported. May be null.
  const std::atomic<bool>* interrupted = nullptr;
  // Called about once a second with a line about the state; empty: not at all.
  std::function<void(const std::string&)> on_progress;
  // A server process on this machine whose CPU time is reported; 0: none.
  int64_t server_pid = 0;
  std::string version;
};

// The scenario must be valid. Blocks until the run is over. UNAVAILABLE or NOT_FOUND when there is
// no server to test, INVALID_ARGUMENT and FAILED_PRECONDITION when something must be set otherwise.
absl::StatusOr<Report> RunScenario(const Scenario& scenario, const RunOptions& options);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_RUNNER_H_
