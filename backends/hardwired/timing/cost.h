// What a million tokens cost: the formula, its usual inputs, and the shares.
//
//   $/Mtok = [ (device + host + network) * CRF(r, n) / 8760 + operations + P * PUE * price ]
//            / (tokens_per_second * utilisation * 0.0036)
//   CRF(r, n) = r (1 + r)^n / ((1 + r)^n - 1), or 1 / n at r = 0
//
// with capital in USD, 8760 hours a year, operations in USD an hour, P in kW. Every input is a
// Quantity, so that a report can print its letter.
#ifndef RETICLE_BACKENDS_HARDWIRED_TIMING_COST_H_
#define RETICLE_BACKENDS_HARDWIRED_TIMING_COST_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/hardwired/profiles/profile.h"

namespace reticle::backends::hardwired {

// All of one device with its share of the server around it.
struct CostInputs {
  Quantity device_usd;
  Quantity host_usd;
  Quantity network_usd;
  Quantity interest;  // a year, 0.08 is 8 %
  Quantity life_years;
  Quantity operations_usd_per_hour;
  Quantity power_watts;  // on average while it serves
  Quantity pue;
  Quantity usd_per_kwh;
  Quantity utilisation;  // 0..1: share of the time at which tokens_per_second is delivered

  // The usual defaults, with the profile's price and power, or `device_usd` as the price. Without a
  // price the capital and operations are unknown: CostOf then answers FAILED_PRECONDITION.
  static CostInputs For(const Profile& profile, std::optional<double> device_usd = std::nullopt);
};

struct CostInputField {
  const char* name;  // "device_usd"
  Quantity CostInputs::*field;
};
// All inputs, for printing and for flags.
std::vector<CostInputField> CostInputFields();

// USD per million tokens, by what it pays for.
struct Cost {
  double hardware = 0;  // device and host
  double network = 0;   // network and storage
  double power = 0;     // power and cooling
  double operations = 0;
  double total() const { return hardware + network + power + operations; }
  // True when an input was unknown and an assumption stood in.
  bool rests_on_assumptions = false;
};

// The capital recovery factor: the part of the price to be earned each year. `years` above 0.
double CapitalRecoveryFactor(double interest, double years);

// INVALID_ARGUMENT names an input out of its range, FAILED_PRECONDITION one that is unknown.
absl::StatusOr<Cost> CostOf(const CostInputs& inputs, double tokens_per_second);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_TIMING_COST_H_
