// What reports of profiles share: figures with the letter of what they rest on, tables, files.
#ifndef RETICLE_SERVER_CLI_REPORT_OUTPUT_H_
#define RETICLE_SERVER_CLI_REPORT_OUTPUT_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/cost.h"

namespace reticle::server::cli {

// A figure that rests on numbers of the profile: the letter is that of the weakest of them.
struct Figure {
  double value = 0;
  char letter = 'U';
};

// The letter that can be relied on the least: from I over V, S and N to U.
char WeakestOf(std::initializer_list<backends::hardwired::Provenance> provenances);
// The weakest of all inputs of a cost.
backends::hardwired::Provenance WeakestOf(const backends::hardwired::CostInputs& inputs);

// "16,960", "123", "12.5", "0.12", "0.0075"
std::string ReadableNumber(double value);

// Rows of equal columns, the first one left-aligned.
class TextTable {
 public:
  void Row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Members of a JSON object that `out` ends with: a comma, unless it is the first, and the key.
void AppendKey(std::string& out, std::string_view name);
// A value; null when it is not finite.
void AppendNumber(std::string& out, double value);
// A member {"value":..,"provenance":".."}, or null.
void AppendFigure(std::string& out, std::string_view name, const std::optional<Figure>& figure);

// Writes `text` to a file, or to standard output for "-".
absl::Status WriteReport(const std::string& path, const std::string& text);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_REPORT_OUTPUT_H_
