#include "server/cli/compare_report.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "absl/strings/str_format.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

using backends::hardwired::Batching;
using backends::hardwired::Cost;
using backends::hardwired::CostInputs;
using backends::hardwired::Key;
using backends::hardwired::Profile;
using backends::hardwired::Provenance;
using backends::hardwired::ProvenanceLetter;
using backends::hardwired::Quantity;

std::string Cell(const Figure& figure) {
  return ReadableNumber(figure.value) + " " + figure.letter;
}

std::string Shares(const Cost& cost) {
  const auto percent = [&](double part) { return std::lround(100 * part / cost.total()); };
  return absl::StrFormat("%d/%d/%d/%d", percent(cost.hardware), percent(cost.power),
                         percent(cost.network), percent(cost.operations));
}

void AppendMember(std::string& out, std::string_view name, double value) {
  AppendKey(out, name);
  AppendNumber(out, value);
}

void AppendMeasured(std::string& out, std::string_view name, const Measured& measured) {
  AppendKey(out, name);
  out += absl::StrFormat("{\"calls\":%u", measured.calls);
  AppendMember(out, "prompt_tokens", static_cast<double>(measured.prompt_tokens));
  AppendMember(out, "output_tokens", static_cast<double>(measured.output_tokens));
  AppendMember(out, "seconds", measured.seconds);
  AppendMember(out, "ttft_ms", measured.ttft_ms);
  AppendMember(out, "tokens_per_second_per_user", measured.per_user);
  AppendMember(out, "tokens_per_second", measured.aggregate);
  AppendMember(out, "session_seconds", measured.session_seconds);
  AppendMember(out, "joules_per_token", measured.joules_per_token);
  out += "}";
}

void AppendDevice(std::string& out, const ComparedDevice& device) {
  out += "{\"profile\":";
  http::AppendJsonString(out, device.profile);
  out += ",\"title\":";
  http::AppendJsonString(out, device.title);
  if (!device.problem.empty()) {
    out += ",\"problem\":";
    http::AppendJsonString(out, device.problem);
    out += "}";
    return;
  }
  AppendMember(out, "users", device.users);
  AppendFigure(out, "ttft_ms", device.ttft_ms);
  AppendFigure(out, "tokens_per_second_alone", device.per_user);
  AppendFigure(out, "session_seconds_alone", device.session_seconds);
  AppendFigure(out, "tokens_per_second_per_user_loaded", device.loaded_per_user);
  AppendFigure(out, "tokens_per_second_in_all", device.aggregate);
  AppendFigure(out, "joules_per_token", device.joules_per_token);
  if (device.usd_per_million.has_value()) {
    AppendFigure(out, "usd_per_million_tokens", *device.usd_per_million);
    out += device.usd_is_claim ? ",\"usd_is_a_claim\":true" : ",\"usd_is_a_claim\":false";
  }
  if (device.cost.has_value()) {
    out += absl::StrFormat(
        ",\"usd_shares\":{\"hardware\":%.6g,\"power_and_cooling\":%.6g,"
        "\"network_and_storage\":%.6g,\"operations\":%.6g}",
        device.cost->hardware, device.cost->power, device.cost->network, device.cost->operations);
  }
  AppendMeasured(out, "alone", device.alone);
  AppendMeasured(out, "loaded", device.loaded);
  out += "}";
}

}  // namespace

void Evaluate(const Profile& profile, std::optional<double> device_usd, ComparedDevice* device) {
  const auto letter_of = [&profile](Key key) { return profile[key].simulated_provenance(); };
  const bool batched = profile.batching == Batching::kBatched;
  const Provenance rate = letter_of(Key::kDecodeRate);
  const Provenance sharing = letter_of(batched ? Key::kAggregateRate : Key::kPipelineDepth);
  device->per_user = {device->alone.per_user, WeakestOf({rate})};
  device->ttft_ms = {device->alone.ttft_ms, WeakestOf({rate, letter_of(Key::kPrefillFixed),
                                                       letter_of(Key::kPrefillPerToken)})};
  device->session_seconds = {device->alone.session_seconds, device->ttft_ms.letter};
  const char loaded = WeakestOf({rate, sharing, letter_of(Key::kPrefillPerToken)});
  device->loaded_per_user = {device->loaded.per_user, loaded};
  device->aggregate = {device->loaded.aggregate, loaded};
  device->joules_per_token = {
      device->loaded.joules_per_token,
      WeakestOf({rate, sharing, letter_of(Key::kActivePower), letter_of(Key::kIdlePower)})};
  const CostInputs inputs = CostInputs::For(profile, device_usd);
  const absl::StatusOr<Cost> cost = backends::hardwired::CostOf(inputs, device->loaded.aggregate);
  if (cost.ok()) {
    device->cost = *cost;
    device->usd_per_million = Figure{cost->total(), WeakestOf({WeakestOf(inputs), rate, sharing})};
  } else if (const Quantity& claim = profile[Key::kClaimedCost]; claim.value.has_value()) {
    device->usd_per_million = Figure{*claim.value, ProvenanceLetter(claim.provenance)};
    device->usd_is_claim = true;
  }
}

std::string ComparisonTable(const Comparison& comparison) {
  std::string text;
  bool claims = false;
  for (const ComparedScenario& compared : comparison.scenarios) {
    const Scenario& scenario = *compared.scenario;
    text += absl::StrFormat("%s\n", scenario.title);
    TextTable table;
    const std::string users =
        absl::StrFormat("%d users", compared.devices.empty() ? 0 : compared.devices[0].users);
    table.Row(
        {"", "alone:", "alone:", "alone:", users + ":", users + ":", "", "", "hardware/power/"});
    table.Row({"device", "TTFT ms", "tok/s", "all in s", "tok/s each", "tok/s in all", "J/token",
               "$/Mtok", "network/ops %"});
    for (const ComparedDevice& device : compared.devices) {
      if (!device.problem.empty()) {
        table.Row({device.profile, "-", "-", "-", "-", "-", "-", "-", "-"});
        continue;
      }
      std::string usd = "unknown";
      if (device.usd_per_million.has_value()) {
        usd = Cell(*device.usd_per_million) + (device.usd_is_claim ? "*" : "");
        claims = claims || device.usd_is_claim;
      }
      table.Row({device.profile, Cell(device.ttft_ms), Cell(device.per_user),
                 Cell(device.session_seconds), Cell(device.loaded_per_user), Cell(device.aggregate),
                 Cell(device.joules_per_token), usd,
                 device.cost.has_value() ? Shares(*device.cost) : "-"});
    }
    text += table.Render();
    for (const ComparedDevice& device : compared.devices) {
      if (!device.problem.empty()) {
        text += absl::StrFormat("  %s: %s\n", device.profile, device.problem);
      }
    }
    text += '\n';
  }
  text +=
      "Simulated. The letter is that of the weakest number behind a figure: I independent\n"
      "measurement, V vendor, S press, N our inference, U unknown.\n";
  text += absl::StrFormat(
      "Per device. Costs at %.0f %% utilisation; power is the whole device's, idle time "
      "included.\n",
      comparison.utilisation * 100);
  if (claims) text += "* as claimed: the price is unknown; --price PROFILE=USD calculates it.\n";
  return text;
}

std::string ComparisonJson(const Comparison& comparison) {
  std::string out = "{\"utilisation\":";
  AppendNumber(out, comparison.utilisation);
  out += ",\"scenarios\":[";
  for (size_t i = 0; i < comparison.scenarios.size(); ++i) {
    const ComparedScenario& compared = comparison.scenarios[i];
    if (i > 0) out += ",";
    out += "{\"scenario\":";
    http::AppendJsonString(out, compared.scenario->name);
    out += ",\"title\":";
    http::AppendJsonString(out, compared.scenario->title);
    out += ",\"devices\":[";
    for (size_t d = 0; d < compared.devices.size(); ++d) {
      if (d > 0) out += ",";
      AppendDevice(out, compared.devices[d]);
    }
    out += "]}";
  }
  out += "]}\n";
  return out;
}

}  // namespace reticle::server::cli
