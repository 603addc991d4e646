#include <algorithm>

#include "absl/strings/str_format.h"
#include "loadtest/report.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr double kColumns[] = {50, 90, 99, 99.9, 99.99};

void AppendRow(std::string& out, const char* name, const Summary& summary,
               std::string (*format)(double)) {
  if (summary.count == 0) return;
  absl::StrAppendFormat(&out, "  %-16s %10s", name, format(summary.mean));
  for (const double percent : kColumns) {
    absl::StrAppendFormat(&out, " %10s", format(summary.At(percent)));
  }
  absl::StrAppendFormat(&out, " %10s\n", format(summary.max));
}

std::string Percent(double part, double whole) {
  return absl::StrFormat("%.2f %%", whole > 0 ? 100 * part / whole : 0.0);
}

}  // namespace

std::string FormatTable(const Report& r, bool color) {
  const char* const red = color ? "\033[31m" : "";
  const char* const green = color ? "\033[32m" : "";
  const char* const bold = color ? "\033[1m" : "";
  const char* const plain = color ? "\033[0m" : "";
  std::string out;
  absl::StrAppendFormat(&out, "%s%s%s  %s  model %s\n", bold, r.name, plain, r.url, r.model);
  if (!r.description.empty()) absl::StrAppendFormat(&out, "%s\n", r.description);
  absl::StrAppendFormat(&out, "measured %.1f s of %.1f s%s\n\n", r.window_s, r.wall_s,
                        r.interrupted ? ", stopped by hand" : "");

  const double all = static_cast<double>(r.requests);
  absl::StrAppendFormat(&out, "requests   %d, succeeded %d (%s)", r.requests, r.successes,
                        Percent(static_cast<double>(r.successes), all));
  if (r.disconnects > 0) absl::StrAppendFormat(&out, ", left on purpose %d", r.disconnects);
  if (r.retries > 0) absl::StrAppendFormat(&out, ", sent again %d", r.retries);
  absl::StrAppendFormat(&out, "\nrate       %s requests/s, goodput %s/s\n",
                        FormatCount(r.requests_per_s), FormatCount(r.goodput_per_s));
  absl::StrAppendFormat(&out, "tokens     %s out/s; in all %d in (%d cached), %d out\n",
                        FormatCount(r.output_tokens_per_s), r.prompt_tokens, r.cached_tokens,
                        r.completion_tokens);
  absl::StrAppendFormat(&out, "events     %s/s, %.3f a token\n", FormatCount(r.events_per_s),
                        r.chunks_per_token);
  if (!r.finish_reasons.empty()) {
    out += "ended by  ";
    for (const auto& [reason, count] : r.finish_reasons) {
      absl::StrAppendFormat(&out, " %s %d", reason, count);
    }
    out += "\n";
  }
  if (r.empty_replies > 0) absl::StrAppendFormat(&out, "no text    %d replies\n", r.empty_replies);
  if (r.short_replies > 0) {
    absl::StrAppendFormat(&out, "%sshort      %d replies have fewer tokens than asked for%s\n", red,
                          r.short_replies, plain);
  }
  if (r.without_usage > 0) {
    absl::StrAppendFormat(&out, "no usage   %d replies; their tokens are not counted\n",
                          r.without_usage);
  }
  for (const auto& [name, count] : r.errors) {
    absl::StrAppendFormat(&out, "%serror      %-16s %d (%s)%s", red, name, count,
                          Percent(static_cast<double>(count), all), plain);
    const auto example = r.error_examples.find(name);
    if (example != r.error_examples.end()) absl::StrAppendFormat(&out, "  %s", example->second);
    out += "\n";
  }

  absl::StrAppendFormat(&out, "\n  %-16s %10s %10s %10s %10s %10s %10s %10s\n", "", "mean", "p50",
                        "p90", "p99", "p99.9", "p99.99", "max");
  const auto summary = [&](const char* name) { return r.summaries.find(name)->second; };
  AppendRow(out, "TTFT", summary("ttft"), FormatNs);
  AppendRow(out, "inter-token", summary("itl"), FormatNs);
  AppendRow(out, "TPOT", summary("tpot"), FormatNs);
  AppendRow(out, "end to end", summary("e2e"), FormatNs);
  AppendRow(out, "conversation", summary("conversation"), FormatNs);
  AppendRow(out, "tok/s a stream", summary("stream_rate"), FormatCount);
  if (const auto fairness = r.Value("fairness"); fairness.has_value() && r.successes > 1) {
    absl::StrAppendFormat(&out, "  fastest over slowest stream %.3f\n", *fairness);
  }

  out += "\nclient    ";
  for (const ClientThread& thread : r.threads) {
    absl::StrAppendFormat(&out, " cpu %.0f %% busy %.0f %% waited %.0f %%;", thread.cpu_share * 100,
                          thread.busy_share * 100, thread.wait_share * 100);
  }
  absl::StrAppendFormat(&out, " sent late p99 %s, loop lag p99 %s\n",
                        FormatNs(summary("send_lag").At(99)), FormatNs(summary("loop_lag").At(99)));
  const double tokens = r.output_tokens_per_s * r.window_s;
  absl::StrAppendFormat(&out, "cpu        client %.2f s", r.client_cpu_s);
  if (tokens > 0) absl::StrAppendFormat(&out, " (%.3f us a token)", r.client_cpu_s * 1e6 / tokens);
  if (r.server_cpu_s.has_value()) {
    absl::StrAppendFormat(&out, ", server %.2f s", *r.server_cpu_s);
    if (tokens > 0) {
      absl::StrAppendFormat(&out, " (%.3f us a token)", *r.server_cpu_s * 1e6 / tokens);
    }
  }
  out += "\n";
  if (r.client.bottleneck) {
    absl::StrAppendFormat(
        &out, "%sverdict    the client was the bottleneck; do not trust this run%s", red, plain);
    for (const std::string& reason : r.client.reasons)
      absl::StrAppendFormat(&out, "\n           %s", reason);
    out += "\n";
  } else {
    absl::StrAppendFormat(&out, "%sverdict    the client kept up%s\n", green, plain);
  }
  for (const std::string& note : r.notes) absl::StrAppendFormat(&out, "note       %s\n", note);
  for (const SloVerdict& verdict : r.slos) {
    absl::StrAppendFormat(
        &out, "%sSLO        %-28s %s, measured %s%s\n", verdict.met ? green : red, verdict.slo.text,
        verdict.met ? "met" : "MISSED",
        verdict.known ? FormatMetric(verdict.slo.metric, verdict.value) : "nothing", plain);
  }
  return out;
}

}  // namespace reticle::loadtest
