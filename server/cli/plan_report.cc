#include "server/cli/plan_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>

#include "absl/strings/str_format.h"
#include "backends/hardwired/timing/cost.h"
#include "loadtest/text.h"
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

constexpr double kMtokPerHour = 0.0036;  // of one token a second
constexpr double kNsPerMs = 1e6;

// ---- For people

std::string Interval(const Estimate& estimate) {
  if (!std::isfinite(estimate.half) || estimate.value == 0) return "";
  return absl::StrFormat(" +-%.2g%%", 100 * estimate.half / estimate.value);
}

std::string TimeCell(const Estimate& estimate, char letter) {
  if (!std::isfinite(estimate.value)) return "-";
  return absl::StrFormat("%s%s %c", loadtest::FormatNs(estimate.value), Interval(estimate), letter);
}

std::string ShareCell(const Estimate& estimate) {
  if (!std::isfinite(estimate.value)) return "-";
  return absl::StrFormat("%.2f +-%.2g %%", estimate.value * 100, estimate.half * 100);
}

std::string MetricCell(std::string_view metric, const Estimate& estimate) {
  if (metric == "goodput" || metric == "errors" || metric == "rejected") {
    return ShareCell(estimate);
  }
  if (!std::isfinite(estimate.value)) return "never";
  return loadtest::FormatMetric(metric, estimate.value) + Interval(estimate);
}

std::string FigureCell(const std::optional<Figure>& figure) {
  if (!figure.has_value()) return "unknown";
  return ReadableNumber(figure->value) + " " + figure->letter;
}

std::string CardsCell(const PlannedProfile& planned) {
  const uint32_t cards = planned.answer.plan->cards;
  std::string text = absl::StrFormat("%d", cards);
  if (planned.cards_per_server > 0) {
    const uint32_t servers = (cards + planned.cards_per_server - 1) / planned.cards_per_server;
    text += absl::StrFormat(" (%d servers)", servers);
  }
  return text;
}

// ---- JSON

void AppendEstimate(std::string& out, std::string_view name, const Estimate& estimate,
                    double unit = 1) {
  AppendKey(out, name);
  out += "{\"value\":";
  AppendNumber(out, estimate.value / unit);
  out += ",\"low\":";
  AppendNumber(out, estimate.low() / unit);
  out += ",\"high\":";
  AppendNumber(out, estimate.high() / unit);
  out += "}";
}

double UnitOf(std::string_view metric) {
  const std::string_view name = metric.substr(0, metric.find('.'));
  return name == "ttft" || name == "tpot" || name == "e2e" ? kNsPerMs : 1;
}

void AppendEvaluation(std::string& out, std::string_view name, const PlanEvaluation& evaluation) {
  AppendKey(out, name);
  out += absl::StrFormat("{\"cards\":%u,\"runs\":%u,\"requests\":%u,\"simulated_seconds\":",
                         evaluation.cards, evaluation.runs, evaluation.requests);
  AppendNumber(out, evaluation.seconds);
  out += absl::StrFormat(",\"verdict\":\"%s\",\"overloaded\":%s,\"bounds\":[",
                         PlanVerdictName(evaluation.verdict),
                         evaluation.overloaded ? "true" : "false");
  for (const JudgedSlo& judged : evaluation.slos) {
    if (out.back() != '[') out += ",";
    out += "{\"bound\":";
    http::AppendJsonString(out, judged.slo.text);
    out += absl::StrFormat(",\"verdict\":\"%s\"", PlanVerdictName(judged.verdict));
    AppendEstimate(out, "estimate", judged.value, UnitOf(judged.slo.metric));
    out += "}";
  }
  out += "]";
  AppendEstimate(out, "ttft_p50_ms", evaluation.ttft_p50, kNsPerMs);
  AppendEstimate(out, "ttft_p99_ms", evaluation.ttft_p99, kNsPerMs);
  AppendEstimate(out, "tpot_p50_ms", evaluation.tpot_p50, kNsPerMs);
  AppendEstimate(out, "tpot_p99_ms", evaluation.tpot_p99, kNsPerMs);
  AppendEstimate(out, "e2e_p50_ms", evaluation.e2e_p50, kNsPerMs);
  AppendEstimate(out, "e2e_p99_ms", evaluation.e2e_p99, kNsPerMs);
  AppendEstimate(out, "good_share", evaluation.good_share);
  AppendEstimate(out, "refused_share", evaluation.refused_share);
  AppendEstimate(out, "too_long_share", evaluation.too_long_share);
  AppendEstimate(out, "requests_per_second", evaluation.requests_per_second);
  AppendEstimate(out, "output_tokens_per_second", evaluation.tokens_per_second);
  AppendEstimate(out, "busy_share", evaluation.busy_share);
  AppendEstimate(out, "kv_share", evaluation.kv_share);
  AppendEstimate(out, "waiting", evaluation.waiting);
  AppendEstimate(out, "watts", evaluation.watts);
  out += "}";
}

void AppendProfile(std::string& out, const PlannedProfile& planned) {
  out += "{";
  AppendKey(out, "profile");
  http::AppendJsonString(out, planned.name);
  AppendKey(out, "title");
  http::AppendJsonString(out, planned.title);
  if (!planned.problem.empty()) {
    AppendKey(out, "problem");
    http::AppendJsonString(out, planned.problem);
    out += "}";
    return;
  }
  const PlanAnswer& answer = planned.answer;
  AppendKey(out, "cards");
  out += answer.plan.has_value() ? absl::StrFormat("%u", answer.plan->cards) : "null";
  if (!answer.impossible.empty()) {
    AppendKey(out, "impossible");
    http::AppendJsonString(out, answer.impossible);
  }
  AppendKey(out, "context_limit");
  out += absl::StrFormat("%u", answer.context_limit);
  AppendKey(out, "requests_per_run");
  out += absl::StrFormat("%u", answer.requests_per_run);
  AppendKey(out, "times_provenance");
  out += absl::StrFormat("\"%c\"", planned.time_letter);
  if (answer.plan.has_value()) {
    AppendEvaluation(out, "plan", *answer.plan);
    AppendFigure(out, "watts", planned.cost.watts);
    AppendFigure(out, "watts_with_server_and_cooling", planned.cost.watts_in_all);
    AppendFigure(out, "power_usd_per_hour", planned.cost.power_usd);
    AppendFigure(out, "usd_per_hour", planned.cost.usd_per_hour);
    AppendFigure(out, "usd_per_million_tokens", planned.cost.usd_per_mtok);
    AppendFigure(out, "capital_usd", planned.cost.capital_usd);
    AppendFigure(out, "claimed_usd_per_million_tokens", planned.cost.claimed_usd_per_mtok);
  }
  if (answer.fewer.has_value()) AppendEvaluation(out, "fewer", *answer.fewer);
  AppendEvaluation(out, "alone", answer.alone);
  out += "}";
}

// "goodput 98.10 +-0.4 %, goodput>=99% is missed", of all bounds that are not kept.
std::string NotKept(const PlanEvaluation& evaluation) {
  std::string text;
  for (const JudgedSlo& judged : evaluation.slos) {
    if (judged.verdict == PlanVerdict::kKept) continue;
    text += absl::StrFormat("%s%s %s, %s is %s", text.empty() ? "" : "; ", judged.slo.metric,
                            MetricCell(judged.slo.metric, judged.value), judged.slo.text,
                            PlanVerdictName(judged.verdict));
  }
  return text;
}

const char* CardsWord(uint32_t cards) { return cards == 1 ? "card" : "cards"; }

std::string HowSure(const PlannedProfile& planned) {
  const PlanEvaluation& plan = *planned.answer.plan;
  const std::string cards = absl::StrFormat("%d %s", plan.cards, CardsWord(plan.cards));
  const std::string base =
      absl::StrFormat("%d requests over %.0f s in %d runs", plan.requests, plan.seconds, plan.runs);
  std::string text = "  " + planned.name + ": ";
  if (plan.slos.empty()) {
    text += cards + ", " + base;
  } else if (plan.verdict == PlanVerdict::kKept) {
    text += absl::StrFormat("95 %% sure that the bounds are kept by %s: %s", cards, base);
  } else if (plan.verdict == PlanVerdict::kMissed) {
    text += absl::StrFormat("the bounds are not kept by %s: %s; %s", cards, NotKept(plan), base);
  } else {
    text +=
        absl::StrFormat("not sure that the bounds are kept by %s: %s; %s; more --requests decide",
                        cards, NotKept(plan), base);
  }
  if (plan.overloaded) text += "; these cannot keep up: requests pile up";
  text += ".\n";
  if (!planned.answer.fewer.has_value()) return text;
  const PlanEvaluation& fewer = *planned.answer.fewer;
  return text + absl::StrFormat(
                    "  %s: %d %s: %s%s.\n", planned.name, fewer.cards,
                    fewer.verdict == PlanVerdict::kMissed ? "would not do" : "might do, not sure",
                    NotKept(fewer), fewer.overloaded ? "; overloaded" : "");
}

}  // namespace

void AddCosts(const Profile& profile, std::optional<double> device_usd, PlannedProfile* planned) {
  const auto letter_of = [&profile](Key key) { return profile[key].simulated_provenance(); };
  const bool batched = profile.batching == Batching::kBatched;
  const Provenance rate = letter_of(Key::kDecodeRate);
  const Provenance sharing = letter_of(batched ? Key::kAggregateRate : Key::kPipelineDepth);
  planned->time_letter =
      WeakestOf({rate, sharing, letter_of(Key::kPrefillFixed), letter_of(Key::kPrefillPerToken)});
  planned->cards_per_server = static_cast<uint32_t>(profile[Key::kServerCards].simulated_or(0));
  if (!planned->answer.plan.has_value()) return;
  const PlanEvaluation& plan = *planned->answer.plan;
  PlanCost& cost = planned->cost;
  const std::optional<double> active = profile[Key::kActivePower].simulated();
  const double tokens_per_card = plan.tokens_per_second.value / plan.cards;
  if (!active.has_value() || !(tokens_per_card > 0)) return;

  const char watts_letter =
      WeakestOf({rate, sharing, letter_of(Key::kActivePower), letter_of(Key::kIdlePower)});
  cost.watts = Figure{plan.watts.value, watts_letter};
  CostInputs inputs = CostInputs::For(profile, device_usd);
  // What the server takes beside its cards goes with each card.
  const double share = profile[Key::kServerPower].simulated().has_value()
                           ? std::max(0.0, inputs.power_watts.simulated_or(0) - *active)
                           : 0;
  Quantity watts;
  watts.value = plan.watts.value / plan.cards + share;
  watts.provenance = Provenance::kInferred;
  inputs.power_watts = watts;
  // The rate is that of the simulated traffic already.
  inputs.utilisation.value = 1;
  inputs.utilisation.provenance = Provenance::kInferred;
  const char letter = WeakestOf({WeakestOf(inputs), rate, sharing});
  cost.watts_in_all = Figure{*watts.value * plan.cards * inputs.pue.simulated_or(1), watts_letter};
  cost.power_usd = Figure{cost.watts_in_all->value / 1000 * inputs.usd_per_kwh.simulated_or(0),
                          WeakestOf({Provenance::kInferred, rate, sharing})};
  const absl::StatusOr<Cost> each = backends::hardwired::CostOf(inputs, tokens_per_card);
  if (!each.ok()) {
    const Quantity& claim = profile[Key::kClaimedCost];
    if (claim.value.has_value()) {
      cost.claimed_usd_per_mtok = Figure{*claim.value, ProvenanceLetter(claim.provenance)};
    }
    return;
  }
  cost.usd_per_mtok = Figure{each->total(), letter};
  cost.usd_per_hour = Figure{each->total() * plan.tokens_per_second.value * kMtokPerHour, letter};
  cost.capital_usd = Figure{(inputs.device_usd.simulated_or(0) + inputs.host_usd.simulated_or(0) +
                             inputs.network_usd.simulated_or(0)) *
                                plan.cards,
                            letter};
}

std::string PlanTable(const PlanReport& report) {
  std::string text = report.traffic + "\n";
  if (!report.bounds.empty()) {
    text += "bounds:";
    for (const std::string& bound : report.bounds) text += " " + bound;
    text += "\n";
  }
  text += "\n";
  std::vector<const PlannedProfile*> shown;
  for (const PlannedProfile& planned : report.profiles) {
    if (planned.problem.empty() && planned.answer.plan.has_value()) shown.push_back(&planned);
  }
  TextTable table;
  const auto row = [&](std::string title,
                       const std::function<std::string(const PlannedProfile&)>& cell) {
    std::vector<std::string> cells = {std::move(title)};
    for (const PlannedProfile* planned : shown) cells.push_back(cell(*planned));
    table.Row(std::move(cells));
  };
  const auto time = [&](const char* title, Estimate PlanEvaluation::*field) {
    row(title, [field](const PlannedProfile& planned) {
      return TimeCell((*planned.answer.plan).*field, planned.time_letter);
    });
  };
  const auto share = [&](const char* title, Estimate PlanEvaluation::*field) {
    row(title, [field](const PlannedProfile& planned) {
      return absl::StrFormat("%.1f", 100 * ((*planned.answer.plan).*field).value);
    });
  };
  const auto usd = [&](const char* title, std::optional<Figure> PlanCost::*field) {
    row(title, [field](const PlannedProfile& planned) { return FigureCell(planned.cost.*field); });
  };
  if (!shown.empty()) {
    row("", [](const PlannedProfile& planned) { return planned.name; });
    row("cards", CardsCell);
    for (size_t i = 0; i < shown[0]->answer.plan->slos.size(); ++i) {
      row(shown[0]->answer.plan->slos[i].slo.text, [i](const PlannedProfile& planned) {
        const JudgedSlo& judged = planned.answer.plan->slos[i];
        return absl::StrFormat("%s: %s", PlanVerdictName(judged.verdict),
                               MetricCell(judged.slo.metric, judged.value));
      });
    }
    time("TTFT p50", &PlanEvaluation::ttft_p50);
    time("TTFT p99", &PlanEvaluation::ttft_p99);
    time("TPOT p50", &PlanEvaluation::tpot_p50);
    time("TPOT p99", &PlanEvaluation::tpot_p99);
    time("end to end p50", &PlanEvaluation::e2e_p50);
    time("end to end p99", &PlanEvaluation::e2e_p99);
    row("tokens/s out", [](const PlannedProfile& planned) {
      return ReadableNumber(planned.answer.plan->tokens_per_second.value);
    });
    share("busy %", &PlanEvaluation::busy_share);
    share("KV memory used %", &PlanEvaluation::kv_share);
    row("waiting for a card", [](const PlannedProfile& planned) {
      return ReadableNumber(planned.answer.plan->waiting.value);
    });
    usd("watts, cards", &PlanCost::watts);
    usd("watts, server and cooling too", &PlanCost::watts_in_all);
    usd("$ an hour, power alone", &PlanCost::power_usd);
    usd("$ an hour", &PlanCost::usd_per_hour);
    usd("$ a million tokens", &PlanCost::usd_per_mtok);
    usd("$ to buy", &PlanCost::capital_usd);
    text += table.Render() + "\n";
  }
  for (const PlannedProfile& planned : report.profiles) {
    if (!planned.problem.empty()) {
      text += absl::StrFormat("  %s: %s\n", planned.name, planned.problem);
    } else if (!planned.answer.impossible.empty()) {
      text += absl::StrFormat("  %s: impossible: %s\n", planned.name, planned.answer.impossible);
    } else {
      text += HowSure(planned);
    }
    if (planned.cost.claimed_usd_per_mtok.has_value()) {
      text += absl::StrFormat(
          "  %s: its price is unknown (--price %s=USD); the claim is $%s a million tokens\n",
          planned.name, planned.name, FigureCell(planned.cost.claimed_usd_per_mtok));
    }
  }
  text +=
      "\nSimulated with the scheduler that serves. +- is half of a 95 % interval over the runs: "
      "the chance\n"
      "of the traffic, not of the profile. The letter is that of the weakest number behind a "
      "figure: I\n"
      "independent measurement, V vendor, S press, N our inference, U unknown.\n";
  return text;
}

std::string PlanJson(const PlanReport& report) {
  std::string out = "{\"traffic\":";
  http::AppendJsonString(out, report.traffic);
  out += ",\"bounds\":[";
  for (const std::string& bound : report.bounds) {
    if (out.back() != '[') out += ",";
    http::AppendJsonString(out, bound);
  }
  out += report.searched ? "],\"searched\":true" : "],\"searched\":false";
  out += ",\"profiles\":[";
  for (const PlannedProfile& planned : report.profiles) {
    if (out.back() != '[') out += ",";
    AppendProfile(out, planned);
  }
  return out + "]}\n";
}

}  // namespace reticle::server::cli
