// What each tier of accounts may do, and where its traffic stands in the queue.
#ifndef RETICLE_SERVER_TENANTS_TIER_H_
#define RETICLE_SERVER_TENANTS_TIER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server::tenants {

// Of one organisation, over all of its keys. 0: no limit. Tokens are those of prompt and output;
// tokens of a prompt that were found in the cache do not count in the end.
struct TierLimits {
  int64_t requests_per_minute = 0;
  int64_t requests_per_day = 0;
  int64_t tokens_per_minute = 0;
  int64_t tokens_per_day = 0;
  int64_t concurrent = 0;           // requests at once
  int64_t max_context = 0;          // tokens of prompt and output together; 0: the model's
  int64_t max_output = 0;           // tokens of one choice; also the default; 0: the model's
  std::vector<std::string> models;  // that may be asked for; empty: all

  // Sets one by its name ("requests_per_minute", ..., "models": comma-separated).
  // INVALID_ARGUMENT naming the field and the value.
  absl::Status Set(std::string_view name, std::string_view value);
  // "name=value,..." separated by ';', each handed to Set.
  absl::Status Apply(std::string_view overrides);
  // All limits as `Apply` reads them.
  std::string ToText() const;
};

enum class TierKind : uint8_t { kFree, kPaid, kOperator };
inline constexpr std::string_view kTierNames[] = {"free", "paid", "operator"};
// INVALID_ARGUMENT listing the tiers.
absl::StatusOr<TierKind> ParseTier(std::string_view name);
inline std::string_view TierName(TierKind tier) { return kTierNames[static_cast<int>(tier)]; }

// The limits of the three tiers.
struct TierTable {
  TierTable();  // the defaults of docs/free-tier.md
  // "free.requests_per_minute=30".
  absl::Status Set(std::string_view assignment);
  const TierLimits& of(TierKind tier) const { return limits[static_cast<int>(tier)]; }

  TierLimits limits[3];
};

// Where a request stands in the queue (scheduler::Request::priority; lower runs first) and the
// service tier that the reply names. Free traffic always stands behind paid traffic.
struct ServiceClass {
  int32_t priority = 0;
  std::string_view name = "default";
};
// `requested`: auto, default, flex or priority, or empty. A free account that asks for "priority"
// is served as "default", which the reply says. INVALID_ARGUMENT for another name.
absl::StatusOr<ServiceClass> ChooseServiceClass(TierKind tier, std::string_view requested);

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_TIER_H_
