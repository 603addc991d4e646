// The chart of a comparison, as SVG.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "server/cli/compare_report.h"

namespace reticle::server::cli {
namespace {

constexpr int kWidth = 1000;
constexpr int kPanel = 420;   // of one panel's bars
constexpr int kLabels = 150;  // for the names at the left
constexpr int kRow = 18;
constexpr int kHead = 46;

struct Panel {
  const char* title;
  const char* color;
  double (*value)(const ComparedDevice&);
};

constexpr Panel kPanels[] = {
    {"tokens/s of one user alone", "#0b7285",
     [](const ComparedDevice& device) { return device.per_user.value; }},
    {"tokens/s of all users together", "#e8590c",
     [](const ComparedDevice& device) { return device.aggregate.value; }},
    {"joules per token", "#5f3dc4",
     [](const ComparedDevice& device) { return device.joules_per_token.value; }},
    {"dollars per million tokens", "#2b8a3e",
     [](const ComparedDevice& device) {
       return device.usd_per_million.has_value() ? device.usd_per_million->value : 0.0;
     }},
};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Bars on a logarithmic scale whose ends are powers of ten.
void AppendPanel(std::string& out, const Panel& panel, const std::vector<ComparedDevice>& devices,
                 int x, int y) {
  double low = 1e300;
  double high = 0;
  for (const ComparedDevice& device : devices) {
    const double value = panel.value(device);
    if (!device.problem.empty() || value <= 0) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  out += absl::StrFormat("<text x=\"%d\" y=\"%d\" class=\"t\">%s (log scale)</text>\n", x,
                         y + kHead - 28, panel.title);
  if (high <= 0) return;
  const double from = std::floor(std::log10(low) - 0.3);
  const double to = std::ceil(std::log10(high));
  const double span = std::max(to - from, 1.0);
  const int bars = kPanel - kLabels - 70;
  for (size_t i = 0; i < devices.size(); ++i) {
    const ComparedDevice& device = devices[i];
    const int top = y + kHead - 14 + static_cast<int>(i) * kRow;
    out += absl::StrFormat("<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n",
                           x + kLabels - 6, top + 12, Escaped(device.profile));
    const double value = panel.value(device);
    if (!device.problem.empty() || value <= 0) {
      out += absl::StrFormat("<text x=\"%d\" y=\"%d\">unknown</text>\n", x + kLabels, top + 12);
      continue;
    }
    const int width = std::max(1, static_cast<int>(bars * (std::log10(value) - from) / span));
    out += absl::StrFormat("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n",
                           x + kLabels, top, width, kRow - 4, panel.color);
    out += absl::StrFormat("<text x=\"%d\" y=\"%d\">%.3g</text>\n", x + kLabels + width + 4,
                           top + 12, value);
  }
}

}  // namespace

std::string ComparisonSvg(const Comparison& comparison) {
  int height = 30;
  std::string body;
  for (const ComparedScenario& compared : comparison.scenarios) {
    body += absl::StrFormat("<text x=\"20\" y=\"%d\" class=\"h\">%s</text>\n", height + 4,
                            Escaped(compared.scenario->title));
    const int panel_height = kHead + static_cast<int>(compared.devices.size()) * kRow;
    for (size_t i = 0; i < std::size(kPanels); ++i) {
      const int x = 20 + static_cast<int>(i % 2) * (kWidth / 2);
      const int y = height + 6 + static_cast<int>(i / 2) * panel_height;
      AppendPanel(body, kPanels[i], compared.devices, x, y);
    }
    height += 2 * panel_height + 40;
  }
  return absl::StrFormat(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
             "height=\"%d\">\n"
             "<style>text{font:11px sans-serif;fill:#212529}.h{font-size:15px;font-weight:bold}"
             ".t{font-weight:bold}</style>\n"
             "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
             kWidth, height, kWidth, height) +
         body + "</svg>\n";
}

}  // namespace reticle::server::cli
