// Two results side by side.
#ifndef RETICLE_LOADTEST_COMPARE_H_
#define RETICLE_LOADTEST_COMPARE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

struct ComparedMetric {
  std::string name;
  std::string unit;
  bool lower_is_better = true;
  bool judged = true;  // counts as a regression when worse; p99.99 and the client's CPU do not
  double before = 0;
  double after = 0;
  // After over before, -1: 0.1 is 10 % more. 0 when both are 0.
  double change = 0;
  // How much worse, as a share: 0.1 is 10 % worse; negative when better.
  double worse = 0;
};

struct Comparison {
  std::string before_name;
  std::string after_name;
  std::vector<ComparedMetric> metrics;      // that both results have
  std::vector<std::string> other_settings;  // that differ: "--rate: 5, 10"
  std::vector<std::string> warnings;

  // The metrics that got worse by more than `share`.
  std::vector<const ComparedMetric*> Regressions(double share) const;
};

// Takes two results in the form that FormatJson writes. INVALID_ARGUMENT names the one that is
// none.
absl::StatusOr<Comparison> CompareReports(std::string_view before, const std::string& before_name,
                                          std::string_view after, const std::string& after_name);

std::string FormatComparison(const Comparison& comparison, bool color);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_COMPARE_H_
