#include "server/cli/report_output.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

using backends::hardwired::CostInputField;
using backends::hardwired::CostInputFields;
using backends::hardwired::CostInputs;
using backends::hardwired::Provenance;

// How much a number can be relied on; the higher, the less.
int Weakness(Provenance provenance) {
  switch (provenance) {
    case Provenance::kIndependent:
      return 0;
    case Provenance::kVendor:
      return 1;
    case Provenance::kPress:
      return 2;
    case Provenance::kInferred:
      return 3;
    case Provenance::kUnknown:
      return 4;
  }
  return 4;
}

}  // namespace

char WeakestOf(std::initializer_list<Provenance> provenances) {
  Provenance weakest = Provenance::kIndependent;
  for (const Provenance provenance : provenances) {
    if (Weakness(provenance) > Weakness(weakest)) weakest = provenance;
  }
  return ProvenanceLetter(weakest);
}

Provenance WeakestOf(const CostInputs& inputs) {
  Provenance weakest = Provenance::kIndependent;
  for (const CostInputField& field : CostInputFields()) {
    const Provenance own = (inputs.*field.field).simulated_provenance();
    if (Weakness(own) > Weakness(weakest)) weakest = own;
  }
  return weakest;
}

std::string ReadableNumber(double value) {
  if (value >= 1000) {
    std::string digits = absl::StrFormat("%.0f", value);
    for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) {
      digits.insert(static_cast<size_t>(at), ",");
    }
    return digits;
  }
  if (value >= 100) return absl::StrFormat("%.0f", value);
  if (value >= 10) return absl::StrFormat("%.1f", value);
  if (value >= 0.1) return absl::StrFormat("%.2f", value);
  return absl::StrFormat("%.2g", value);
}

std::string TextTable::Render() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      text += i == 0 ? "  " + row[i] + padding : "  " + padding + row[i];
    }
    text += '\n';
  }
  return text;
}

void AppendKey(std::string& out, std::string_view name) {
  if (out.back() != '{') out += ",";
  http::AppendJsonString(out, name);
  out += ":";
}

void AppendNumber(std::string& out, double value) {
  out += std::isfinite(value) ? absl::StrFormat("%.9g", value) : "null";
}

void AppendFigure(std::string& out, std::string_view name, const std::optional<Figure>& figure) {
  AppendKey(out, name);
  if (!figure.has_value()) {
    out += "null";
    return;
  }
  out += "{\"value\":";
  AppendNumber(out, figure->value);
  out += absl::StrFormat(",\"provenance\":\"%c\"}", figure->letter);
}

absl::Status WriteReport(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return UnavailableError("%s cannot be written", path);
}

}  // namespace reticle::server::cli
