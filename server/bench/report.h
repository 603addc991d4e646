// What a run of `reticle bench serve` found: a table for people, JSON for the next run's
// comparison.
#ifndef RETICLE_SERVER_BENCH_REPORT_H_
#define RETICLE_SERVER_BENCH_REPORT_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace reticle::server::bench {

struct Figure {
  std::string name;  // "one_stream.rate_ratio"
  std::string unit;
  bool higher_is_better = true;
  double value = 0;                // the median of the repeats
  double lowest = 0, highest = 0;  // of the repeats
  std::optional<double> goal;      // what is to be reached
};

class Report {
 public:
  // One figure from its repeats; at least one.
  void Add(const std::string& name, const std::string& unit, bool higher_is_better,
           std::vector<double> repeats, std::optional<double> goal = std::nullopt);
  // Something to say beside the figures.
  void Note(std::string text) { notes_.push_back(std::move(text)); }
  const std::vector<Figure>& figures() const { return figures_; }

  // Lines of text; with the figures of `last` (empty: none) beside them.
  std::string Table(const std::vector<Figure>& last) const;
  std::string Json(const std::string& when) const;

 private:
  std::vector<Figure> figures_;
  std::vector<std::string> notes_;
};

// The figures of the JSON file at `path`; empty when there is none or it is not such a file.
std::vector<Figure> ReadReport(const std::string& path);
// The report in `folder` that was written last, by its name; empty when there is none.
std::string LastReport(const std::string& folder);

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_REPORT_H_
