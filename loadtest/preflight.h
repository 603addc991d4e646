// What a run has to know about its server before it starts.
#ifndef RETICLE_LOADTEST_PREFLIGHT_H_
#define RETICLE_LOADTEST_PREFLIGHT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/driver.h"
#include "loadtest/endpoint.h"
#include "loadtest/scenario.h"
#include "loadtest/tls.h"
#include "loadtest/workload.h"

namespace reticle::loadtest {

struct Target {
  Endpoint endpoint;
  SocketAddress address;  // HTTP only
  std::unique_ptr<TlsContext> tls;
  std::string model;
};

// Finds the server and the model. Blocks. UNAVAILABLE or NOT_FOUND when there is no server,
// UNAVAILABLE when it is not ready, FAILED_PRECONDITION when it does not say what models it has.
absl::StatusOr<Target> FindTarget(const Scenario& scenario);

// A maker of transports to the target, which must outlive it and the transports.
Driver::MakeTransport TransportMaker(const Scenario& scenario, const Target& target);

// Sends two synthetic prompts of different length and reads `usage`: how many tokens a word is. On
// failure the scale is 1 and `note` says why; it says what was found otherwise.
WordScale CalibrateWords(const Scenario& scenario, const Target& target, std::string& note);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_PREFLIGHT_H_
