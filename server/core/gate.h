// Who may use the server, and how much: the seam between the fronts and the accounts behind them
// (server/tenants). A server without a gate serves everybody.
#ifndef RETICLE_SERVER_CORE_GATE_H_
#define RETICLE_SERVER_CORE_GATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/generate_params.h"
#include "server/core/model.h"

namespace reticle::server {

// Whoever holds a key. Immutable; lives as long as anybody refers to it.
struct Caller {
  virtual ~Caller() = default;

  std::string key_id;
  std::string organisation;
  std::string tier;
  // Names the organisation to the scheduler; never 0, which stands for everybody without a key.
  uint64_t tenant = 0;
  // How many of its requests are told times to come back that differ (scheduler/appointments.h).
  uint32_t appointments = 1;
};

// What a request used in the end.
struct ReservationUse {
  uint64_t prompt_tokens = 0;  // the cached ones included
  uint64_t cached_tokens = 0;
  uint64_t output_tokens = 0;
};

// A request's share of its caller's quota. Settle once; unsettled, all of it goes back.
class Reservation {
 public:
  virtual ~Reservation() = default;
  // What is used so far, so that a crash loses little of it. Cheap; from one thread at a time.
  virtual void Progress(uint64_t prompt_tokens, uint64_t output_tokens) = 0;
  virtual void Settle(const ReservationUse& use) = 0;
};

struct ApplicationForm {
  std::string email, name, use_case;
  bool terms = false;
};

// Thread-safe.
class Gate {
 public:
  virtual ~Gate() = default;

  // `authorization`: the value of that header, "Bearer KEY". UNAUTHENTICATED without saying more
  // than whether a key was given. Quick; never waits.
  virtual absl::StatusOr<std::shared_ptr<const Caller>> Authenticate(
      std::string_view authorization) = 0;

  // Fits `params` to what the caller may ask for: priority, service tier, longest context and
  // output. PERMISSION_DENIED for a model that is not the caller's, INVALID_ARGUMENT naming a
  // field.
  virtual absl::Status Fit(const Caller& caller, const ModelEntry& model,
                           GenerateParams& params) = 0;
  // Takes one request and `tokens` from the caller's quota. RESOURCE_EXHAUSTED with a true time to
  // retry (error.h); INVALID_ARGUMENT with HTTP status 413 for more than the limit ever allows. May
  // wait for the network when reserve_blocks().
  virtual absl::StatusOr<std::unique_ptr<Reservation>> Reserve(
      const std::shared_ptr<const Caller>& caller, uint64_t tokens) = 0;
  virtual bool reserve_blocks() const = 0;
  // Appends header lines that tell the caller's limits and what is left of them.
  virtual void AppendHeaders(const Caller& caller, std::string& out) = 0;

  // What does not work although requests are served: "shared_quotas" (they are counted by this
  // process alone), "accounts_store" (changes of keys are not seen, usage waits). Quick.
  virtual std::vector<std::string_view> Degraded() const { return {}; }

  // The rest waits for the store.
  // The JSON body of GET /v1/usage.
  virtual absl::StatusOr<std::string> UsageJson(const Caller& caller) = 0;
  // A claim, with which the key can be fetched once the application is approved. RESOURCE_EXHAUSTED
  // when `address` has asked too often.
  virtual absl::StatusOr<std::string> Apply(const ApplicationForm& form,
                                            std::string_view address) = 0;
  // The key in clear. FAILED_PRECONDITION while the application waits.
  virtual absl::StatusOr<std::string> Claim(const std::string& claim, std::string_view address) = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_GATE_H_
