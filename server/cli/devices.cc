#include "server/cli/devices.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "server/cli/command_line.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

namespace hardwired = backends::hardwired;
using hardwired::Key;
using hardwired::KeyInfo;
using hardwired::Profile;
using hardwired::Provenance;
using hardwired::Quantity;

constexpr char kLegend[] =
    "V vendor's claim, I independent measurement, S press or forum, N our inference, U unknown.\n";
constexpr char kAssumedLegend[] =
    "A number in parentheses is no fact: it is what the emulation takes where nobody knows (N).\n";

// "16,960", "0.0147", "62.5"
std::string Plain(double value) {
  std::string text = absl::StrFormat("%.6g", value);
  if (value >= 1e5 && value < 1e15) text = absl::StrFormat("%.0f", value);
  const size_t end = text.find_first_not_of("0123456789") == std::string::npos
                         ? text.size()
                         : text.find_first_not_of("0123456789");
  for (size_t at = end; at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

// "16,960 V", "(1) U", "U"
std::string Cell(const Quantity& quantity) {
  if (quantity.value.has_value()) {
    return Plain(*quantity.value) + " " + hardwired::ProvenanceLetter(quantity.provenance);
  }
  return quantity.assumed.has_value() ? "(" + Plain(*quantity.assumed) + ") U" : "U";
}

std::string Pad(std::string text, size_t width, bool right) {
  if (text.size() >= width) return text;
  return right ? std::string(width - text.size(), ' ') + text
               : text + std::string(width - text.size(), ' ');
}

void AppendMember(std::string& out, std::string_view name, std::string_view text) {
  http::AppendJsonString(out, name);
  out += ": ";
  http::AppendJsonString(out, text);
}

std::string JsonNumber(const std::optional<double>& value) {
  return value.has_value() ? absl::StrFormat("%.17g", *value) : "null";
}

std::string QuantityJson(const Quantity& quantity) {
  std::string out = "{\"value\": " + JsonNumber(quantity.value) + ", ";
  AppendMember(out, "unit", quantity.unit);
  out += ", ";
  AppendMember(out, "from", std::string(1, hardwired::ProvenanceLetter(quantity.provenance)));
  if (!quantity.source.empty()) {
    out += ", ";
    AppendMember(out, "source", quantity.source);
  }
  if (quantity.assumed.has_value()) {
    out += ", \"assumed\": " + JsonNumber(quantity.assumed) + ", ";
    AppendMember(out, "assumption", quantity.assumption);
  }
  return out + "}";
}

bool IsStated(const Quantity& quantity, const Profile& profile) {
  return quantity.value.has_value() || quantity.assumed.has_value() ||
         profile.batching != hardwired::Batching::kUnlimited;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "reticle devices: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

std::string DevicesTable(const std::vector<Profile>& profiles) {
  const struct {
    const char* title;
    std::optional<Key> key;
  } columns[] = {{"profile", {}},
                 {"tok/s one stream", Key::kDecodeRate},
                 {"tok/s saturated", Key::kAggregateRate},
                 {"depth", Key::kPipelineDepth},
                 {"context", Key::kContext},
                 {"W active", Key::kActivePower},
                 {"USD", Key::kPrice}};
  std::vector<std::vector<std::string>> rows(1);
  for (const auto& column : columns) rows[0].emplace_back(column.title);
  for (const Profile& profile : profiles) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const auto& column : columns) {
      row.push_back(column.key.has_value() ? Cell(profile[*column.key]) : profile.name);
    }
  }
  std::string out;
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      size_t width = 0;
      for (const std::vector<std::string>& other : rows) width = std::max(width, other[i].size());
      out += (i > 0 ? "  " : "") + Pad(row[i], width, i > 0);
    }
    out += "\n";
  }
  return out + "\n" + kLegend + kAssumedLegend +
         "One stream and saturated are different things: a user feels the first, an operator pays "
         "for the second.\n";
}

std::string DeviceText(const Profile& profile) {
  std::string out = absl::StrFormat("%s: %s, %s\n%s\n%s\n", profile.name, profile.title,
                                    profile.vendor, profile.summary, profile.source);
  out += absl::StrFormat("batching: %s; %s; the host %s sample what the device cannot\n",
                         std::string(hardwired::BatchingName(profile.batching)),
                         profile.is_hardwired ? "hardwired" : "programmable",
                         profile.host_sampling ? "may" : "may not");
  std::string section;
  for (const KeyInfo& info : hardwired::KeyInfos()) {
    const Quantity& quantity = profile[info.key];
    if (!IsStated(quantity, profile)) continue;
    const std::string_view name = info.name;
    const std::string_view head = name.substr(0, name.find('.'));
    if (head != section) {
      section = head;
      out += "\n[" + section + "]\n";
    }
    out += absl::StrFormat("%-20s %c  %14s %-12s %s\n", std::string(name.substr(head.size() + 1)),
                           hardwired::ProvenanceLetter(quantity.provenance),
                           quantity.value.has_value()     ? Plain(*quantity.value)
                           : quantity.assumed.has_value() ? "(" + Plain(*quantity.assumed) + ")"
                                                          : "unknown",
                           info.unit,
                           quantity.assumed.has_value() ? "assumed: " + quantity.assumption
                           : quantity.source.empty()    ? info.meaning
                                                        : quantity.source);
  }
  if (!profile.facts.empty()) out += "\n[facts]\n";
  for (const hardwired::Fact& fact : profile.facts) {
    out += absl::StrFormat("%-20s %c  %s (%s)\n", fact.name,
                           hardwired::ProvenanceLetter(fact.provenance), fact.text, fact.source);
  }
  return out + "\n" + kLegend + kAssumedLegend;
}

std::string DeviceJson(const Profile& profile) {
  std::string out = "{";
  for (const auto& [name, text] : {std::pair<const char*, std::string>{"name", profile.name},
                                   {"title", profile.title},
                                   {"vendor", profile.vendor},
                                   {"summary", profile.summary},
                                   {"batching", std::string(BatchingName(profile.batching))}}) {
    AppendMember(out, name, text);
    out += ", ";
  }
  out += absl::StrFormat("\"hardwired\": %s, \"host_sampling\": %s,\n \"numbers\": {",
                         profile.is_hardwired ? "true" : "false",
                         profile.host_sampling ? "true" : "false");
  bool first = true;
  for (const KeyInfo& info : hardwired::KeyInfos()) {
    out += first ? "\n  " : ",\n  ";
    first = false;
    http::AppendJsonString(out, info.name);
    out += ": " + QuantityJson(profile[info.key]);
  }
  out += "},\n \"facts\": [";
  for (size_t i = 0; i < profile.facts.size(); ++i) {
    const hardwired::Fact& fact = profile.facts[i];
    out += i > 0 ? ",\n  {" : "\n  {";
    AppendMember(out, "name", fact.name);
    out += ", ";
    AppendMember(out, "text", fact.text);
    out += ", ";
    AppendMember(out, "from", std::string(1, hardwired::ProvenanceLetter(fact.provenance)));
    out += ", ";
    AppendMember(out, "source", fact.source);
    out += "}";
  }
  return out + "]}";
}

int RunDevices(const std::vector<std::string>& arguments) {
  CLI::App app("Lists the device profiles; `show` prints each number of one and who says so",
               "reticle devices");
  bool json = false;
  std::string name;
  app.add_flag("--json", json, "As JSON");
  CLI::App* const show = app.add_subcommand("show", "Everything about one profile");
  show->add_option("profile", name, "A profile's name, or the path of a TOML file")->required();
  show->add_flag("--json", json, "As JSON");
  app.require_subcommand(0, 1);
  if (const auto exit = ParseArguments(app, arguments); exit.has_value()) return Finish(*exit);
  if (*show) {
    const auto profile = hardwired::LoadProfile(name);
    if (!profile.ok()) return Fail(profile.status());
    std::fputs((json ? DeviceJson(*profile) + "\n" : DeviceText(*profile)).c_str(), stdout);
    return 0;
  }
  std::vector<Profile> profiles;
  for (const std::string& built_in : hardwired::BuiltInProfileNames()) {
    const auto profile = hardwired::LoadProfile(built_in);
    if (!profile.ok()) return Fail(profile.status());
    profiles.push_back(*profile);
  }
  if (!json) {
    std::fputs(DevicesTable(profiles).c_str(), stdout);
    return 0;
  }
  std::string out = "[";
  for (size_t i = 0; i < profiles.size(); ++i) {
    out += (i > 0 ? ",\n" : "") + DeviceJson(profiles[i]);
  }
  std::fputs((out + "]\n").c_str(), stdout);
  return 0;
}

}  // namespace reticle::server::cli
