#include "server/cli/profile_options.h"

#include "absl/strings/numbers.h"
#include "base/status.h"

namespace reticle::server::cli {

absl::StatusOr<std::map<std::string, double>> ParsePrices(const std::vector<std::string>& texts) {
  std::map<std::string, double> prices;
  for (const std::string& text : texts) {
    const size_t sign = text.find('=');
    double usd = 0;
    if (sign == std::string::npos || !absl::SimpleAtod(text.substr(sign + 1), &usd) ||
        !(usd >= 0 && usd <= 1e12)) {
      return InvalidArgumentError("--price is \"%s\"; it must be PROFILE=USD", text);
    }
    prices[text.substr(0, sign)] = usd;
  }
  return prices;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ApplySettings(
    const std::vector<std::string>& texts, backends::hardwired::Profile* profile) {
  std::vector<std::pair<std::string, std::string>> settings;
  for (const std::string& text : texts) {
    const size_t colon = text.rfind(':', text.find('='));
    const size_t sign = text.find('=');
    if (colon == std::string::npos || sign == std::string::npos) {
      return InvalidArgumentError("--set is \"%s\"; it must be PROFILE:name=value", text);
    }
    if (text.substr(0, colon) != profile->name) continue;
    settings.emplace_back(text.substr(colon + 1, sign - colon - 1), text.substr(sign + 1));
    RETURN_IF_ERROR(backends::hardwired::OverrideQuantity(settings.back().first,
                                                          settings.back().second, profile));
  }
  return settings;
}

}  // namespace reticle::server::cli
