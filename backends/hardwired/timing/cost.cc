#include "backends/hardwired/timing/cost.h"

#include <cmath>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr double kHoursPerYear = 8760;
// Tokens a second to millions of tokens an hour.
constexpr double kMtokPerHour = 0.0036;
// Shares of the cost of inference in the press: hardware 40 to 50 %, network and storage 10 to
// 15 %, people and operations 10 to 15 %.
constexpr double kNetworkPerHardware = 0.25;
constexpr double kOperationsPerHardware = 0.25;
constexpr double kHostPerDevice = 0.25;

Quantity Known(double value, const char* unit, Provenance from, const char* source) {
  Quantity quantity;
  quantity.value = value;
  quantity.unit = unit;
  quantity.provenance = from;
  quantity.source = source;
  return quantity;
}

Quantity Assumed(std::optional<double> value, const char* unit, const char* why) {
  Quantity quantity;
  quantity.unit = unit;
  quantity.assumed = value;
  if (value.has_value()) quantity.assumption = why;
  return quantity;
}

struct Range {
  double min;
  double max;
};

Range RangeOf(std::string_view name) {
  if (name == "life_years") return {0.1, 100};
  if (name == "interest") return {0, 1};
  if (name == "utilisation") return {1e-6, 1};
  if (name == "pue") return {1, 10};
  return {0, 1e12};
}

}  // namespace

CostInputs CostInputs::For(const Profile& profile, std::optional<double> device_usd) {
  CostInputs inputs;
  inputs.device_usd = profile[Key::kPrice];
  if (device_usd.has_value()) {
    inputs.device_usd = Known(*device_usd, "USD", Provenance::kInferred, "set by the operator");
  }
  const std::optional<double> price = inputs.device_usd.simulated();
  const auto part = [&](double share) -> std::optional<double> {
    if (!price.has_value()) return std::nullopt;
    return *price * share;
  };
  inputs.host_usd =
      Assumed(part(kHostPerDevice), "USD", "a quarter of the device: its share of the server");
  inputs.network_usd = Assumed(part((1 + kHostPerDevice) * kNetworkPerHardware), "USD",
                               "a quarter of the hardware, as in the press");
  inputs.interest = Known(0.08, "1/year", Provenance::kInferred, "a usual rate");
  inputs.life_years = Known(5, "years", Provenance::kPress, "3 to 6 years");
  inputs.operations_usd_per_hour = Assumed(std::nullopt, "USD/h", "");
  if (price.has_value()) {
    const double capital = *price * (1 + kHostPerDevice);
    inputs.operations_usd_per_hour =
        Assumed(capital * CapitalRecoveryFactor(0.08, 5) / kHoursPerYear * kOperationsPerHardware,
                "USD/h", "a quarter of the hardware's cost, as in the press");
  }
  const std::optional<double> server = profile[Key::kServerPower].simulated();
  const std::optional<double> cards = profile[Key::kServerCards].simulated();
  if (server.has_value() && cards.has_value()) {
    inputs.power_watts =
        Known(*server / *cards, "W", Provenance::kInferred, "a device's share of its server");
  } else {
    inputs.power_watts = profile[Key::kActivePower];
  }
  inputs.pue = Known(1.2, "", Provenance::kPress, "a usual data centre");
  inputs.usd_per_kwh = Known(0.08, "USD/kWh", Provenance::kPress, "a usual price");
  inputs.utilisation = Known(0.45, "", Provenance::kPress, "30 to 60 %");
  return inputs;
}

std::vector<CostInputField> CostInputFields() {
  return {{"device_usd", &CostInputs::device_usd},
          {"host_usd", &CostInputs::host_usd},
          {"network_usd", &CostInputs::network_usd},
          {"interest", &CostInputs::interest},
          {"life_years", &CostInputs::life_years},
          {"operations_usd_per_hour", &CostInputs::operations_usd_per_hour},
          {"power_watts", &CostInputs::power_watts},
          {"pue", &CostInputs::pue},
          {"usd_per_kwh", &CostInputs::usd_per_kwh},
          {"utilisation", &CostInputs::utilisation}};
}

double CapitalRecoveryFactor(double interest, double years) {
  if (interest == 0) return 1 / years;
  const double growth = std::pow(1 + interest, years);
  return interest * growth / (growth - 1);
}

absl::StatusOr<Cost> CostOf(const CostInputs& inputs, double tokens_per_second) {
  if (!(tokens_per_second > 0) || !std::isfinite(tokens_per_second)) {
    return InvalidArgumentError("tokens_per_second is %g; it must be above 0", tokens_per_second);
  }
  Cost cost;
  for (const CostInputField& field : CostInputFields()) {
    const Quantity& input = inputs.*field.field;
    const std::optional<double> value = input.simulated();
    if (!value.has_value()) {
      return FailedPreconditionError("%s is unknown; the cost cannot be told without it",
                                     field.name);
    }
    const Range range = RangeOf(field.name);
    if (!(*value >= range.min) || !(*value <= range.max)) {
      return InvalidArgumentError("%s is %g; it must be in %g .. %g", field.name, *value, range.min,
                                  range.max);
    }
    if (!input.value.has_value()) cost.rests_on_assumptions = true;
  }
  const auto of = [](const Quantity& quantity) { return *quantity.simulated(); };
  const double yearly = CapitalRecoveryFactor(of(inputs.interest), of(inputs.life_years));
  const double mtok_per_hour = tokens_per_second * of(inputs.utilisation) * kMtokPerHour;
  const double per_capital = yearly / kHoursPerYear / mtok_per_hour;
  cost.hardware = (of(inputs.device_usd) + of(inputs.host_usd)) * per_capital;
  cost.network = of(inputs.network_usd) * per_capital;
  cost.power =
      of(inputs.power_watts) / 1000 * of(inputs.pue) * of(inputs.usd_per_kwh) / mtok_per_hour;
  cost.operations = of(inputs.operations_usd_per_hour) / mtok_per_hour;
  return cost;
}

}  // namespace reticle::backends::hardwired
