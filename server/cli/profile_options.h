// Options of commands that calculate with profiles: prices, and numbers to replace.
#ifndef RETICLE_SERVER_CLI_PROFILE_OPTIONS_H_
#define RETICLE_SERVER_CLI_PROFILE_OPTIONS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/hardwired/profiles/profile.h"

namespace reticle::server::cli {

// "PROFILE=USD" each: USD by profile. INVALID_ARGUMENT quotes the first that is not.
absl::StatusOr<std::map<std::string, double>> ParsePrices(const std::vector<std::string>& texts);

// Replaces the numbers of "PROFILE:name=value" texts that are for this profile, and returns them as
// options of its driver. INVALID_ARGUMENT: no such number, or out of range.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ApplySettings(
    const std::vector<std::string>& texts, backends::hardwired::Profile* profile);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PROFILE_OPTIONS_H_
