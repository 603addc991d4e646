#include "server/bench/report.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "absl/strings/str_format.h"

namespace reticle::server::bench {
namespace {

std::string Number(double value) {
  const double size = std::fabs(value);
  if (size >= 100'000) return absl::StrFormat("%.0f", value);
  if (size >= 100) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.3g", value);
}

}  // namespace

void Report::Add(const std::string& name, const std::string& unit, bool higher_is_better,
                 std::vector<double> repeats, std::optional<double> goal) {
  std::sort(repeats.begin(), repeats.end());
  Figure figure;
  figure.name = name;
  figure.unit = unit;
  figure.higher_is_better = higher_is_better;
  figure.value = repeats[repeats.size() / 2];
  figure.lowest = repeats.front();
  figure.highest = repeats.back();
  figure.goal = goal;
  figures_.push_back(std::move(figure));
}

std::string Report::Table(const std::vector<Figure>& last) const {
  std::string out = absl::StrFormat("%-42s %12s %-10s %21s %10s %12s\n", "figure", "median", "",
                                    "lowest .. highest", "goal", "last run");
  for (const Figure& figure : figures_) {
    std::string goal;
    if (figure.goal.has_value()) {
      const bool reached =
          figure.higher_is_better ? figure.value >= *figure.goal : figure.value <= *figure.goal;
      goal = Number(*figure.goal) + (reached ? " ok" : " --");
    }
    std::string before;
    for (const Figure& old : last) {
      if (old.name != figure.name || old.value == 0) continue;
      before = absl::StrFormat("%+.1f %%", (figure.value / old.value - 1) * 100);
    }
    out += absl::StrFormat("%-42s %12s %-10s %21s %10s %12s\n", figure.name, Number(figure.value),
                           figure.unit, Number(figure.lowest) + " .. " + Number(figure.highest),
                           goal, before);
  }
  for (const std::string& note : notes_) out += note + "\n";
  return out;
}

std::string Report::Json(const std::string& when) const {
  std::string out = absl::StrFormat("{\"bench\":\"serve\",\"when\":\"%s\",\"figures\":[", when);
  for (size_t i = 0; i < figures_.size(); ++i) {
    const Figure& figure = figures_[i];
    out += absl::StrFormat(
        "%s\n{\"name\":\"%s\",\"unit\":\"%s\",\"higher_is_better\":%s,\"median\":%.9g,"
        "\"lowest\":%.9g,\"highest\":%.9g",
        i == 0 ? "" : ",", figure.name, figure.unit, figure.higher_is_better ? "true" : "false",
        figure.value, figure.lowest, figure.highest);
    if (figure.goal.has_value()) out += absl::StrFormat(",\"goal\":%.9g", *figure.goal);
    out += "}";
  }
  return out + "\n]}\n";
}

std::vector<Figure> ReadReport(const std::string& path) {
  std::vector<Figure> figures;
  simdjson::dom::parser parser;
  simdjson::dom::array entries;
  if (parser.load(path)["figures"].get_array().get(entries) != simdjson::SUCCESS) return figures;
  for (const simdjson::dom::element entry : entries) {
    Figure figure;
    std::string_view name;
    if (entry["name"].get_string().get(name) != simdjson::SUCCESS) continue;
    if (entry["median"].get_double().get(figure.value) != simdjson::SUCCESS) continue;
    figure.name = std::string(name);
    figures.push_back(std::move(figure));
  }
  return figures;
}

std::string LastReport(const std::string& folder) {
  std::string last;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("serve-") && name.ends_with(".json")) {
      last = std::max(last, entry.path().string());
    }
  }
  return last;
}

}  // namespace reticle::server::bench
