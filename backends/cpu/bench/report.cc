#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "backends/cpu/bench/cpu_bench.h"

namespace reticle::backends::cpu::bench {
namespace {

constexpr double kGiga = 1e9;
constexpr double kMega = 1e6;

// Three significant digits, as many as such measurements have.
std::string Number(double value) {
  const double size = std::fabs(value);
  if (size >= 100) return absl::StrFormat("%.0f", value);
  if (size >= 10) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

std::string Range(const Samples& samples, double unit = 1) {
  return Number(samples.lowest() / unit) + " .. " + Number(samples.highest() / unit);
}

std::string Percent(double share) { return absl::StrFormat("%.0f %%", share * 100); }

std::string Quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += absl::StrFormat("\\u%04x", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string SamplesJson(const Samples& samples) {
  return absl::StrFormat("{\"median\":%.6g,\"lowest\":%.6g,\"highest\":%.6g,\"samples\":%d}",
                         samples.median(), samples.lowest(), samples.highest(), samples.size());
}

// What a context costs beyond an empty one, in units of the time that its KV takes to read.
std::string Slope(const CpuBenchResult& all, const ThreadsResult& threads) {
  std::string text;
  const auto empty = std::find_if(threads.cases.begin(), threads.cases.end(), [](const auto& c) {
    return c.kind == CaseKind::kDecode && c.context == 0;
  });
  if (empty == threads.cases.end() || empty->tokens_per_second.empty()) return text;
  for (const CaseResult& result : threads.cases) {
    if (result.kind != CaseKind::kDecode || result.context == 0) continue;
    const double more =
        1 / result.tokens_per_second.median() - 1 / empty->tokens_per_second.median();
    const double bytes =
        static_cast<double>(result.context) * static_cast<double>(all.counts.kv_bytes);
    const double least = bytes / threads.limits.memory.bytes_per_second.median();
    text += absl::StrFormat(
        "a token at %d takes %s ms more than at 0; its KV at read bandwidth %s ms\n",
        result.context, Number(more * 1e3), Number(least * 1e3));
  }
  return text;
}

std::string LimitsText(const ThreadsResult& threads) {
  const MachineLimits& limits = threads.limits;
  const auto read = [](const ReadLimit& limit) {
    return absl::StrFormat(
        "%s GB/s (%s) over %s MB", Number(limit.bytes_per_second.median() / kGiga),
        Range(limit.bytes_per_second, kGiga), Number(static_cast<double>(limit.bytes) / kMega));
  };
  std::string text = "read  " + read(limits.memory) + "; " + read(limits.weights) + "\n";
  for (const bool is_int8 : {true, false}) {
    text += is_int8 ? "int8  " : "float ";
    bool first = true;
    for (const PeakLimit& peak : limits.peaks) {
      if (peak.is_int8 != is_int8) continue;
      text += absl::StrFormat("%s%s %s", first ? "" : ", ", peak.name,
                              Number(peak.ops_per_second.median() / kGiga));
      first = false;
    }
    text += " GOP/s\n";
  }
  return text;
}

std::string CasesText(const CpuBenchResult& all, const ThreadsResult& threads) {
  const bool peer = !all.peer.empty();
  std::string text =
      absl::StrFormat("%-16s %9s %19s %7s %8s %8s %8s%s\n", "", "tok/s", "lowest .. highest",
                      "GB/s", "of read", "GOP/s", "of peak", peer ? "   theirs   ratio" : "");
  for (const CaseResult& result : threads.cases) {
    const double rate = result.tokens_per_second.median();
    text += absl::StrFormat(
        "%-16s %9s %19s %7s %8s %8s %8s", result.name, Number(rate),
        Range(result.tokens_per_second), Number(result.work.bytes * rate / kGiga),
        Percent(result.share_of_read.median()), Number(result.work.ops() * rate / kGiga),
        Percent(result.share_of_peak.median()));
    if (!result.ratio.empty()) {
      text += absl::StrFormat("%9s %7s (%s)", Number(result.peer_tokens_per_second.median()),
                              Number(result.ratio.median()), Range(result.ratio));
    }
    text += "\n";
  }
  return text;
}

std::string CaseJson(const CaseResult& result) {
  static constexpr const char* kKinds[] = {"prefill", "decode", "batch"};
  const double rate = result.tokens_per_second.median();
  std::string text = absl::StrFormat(
      "{\"name\":%s,\"kind\":\"%s\",\"tokens\":%d,\"context\":%d,\"sequences\":%d,"
      "\"tokens_per_second\":%s,\"bytes_per_token\":%.6g,\"int8_ops_per_token\":%.6g,"
      "\"float_ops_per_token\":%.6g,\"gb_per_second\":%.6g,\"share_of_read\":%.4g,"
      "\"gop_per_second\":%.6g,\"share_of_peak\":%.4g",
      Quoted(result.name), kKinds[static_cast<int>(result.kind)], result.tokens, result.context,
      result.sequences, SamplesJson(result.tokens_per_second), result.work.bytes,
      result.work.int8_ops, result.work.float_ops, result.work.bytes * rate / kGiga,
      result.share_of_read.median(), result.work.ops() * rate / kGiga,
      result.share_of_peak.median());
  if (!result.ratio.empty()) {
    text += absl::StrFormat(",\"peer_tokens_per_second\":%s,\"ratio\":%s",
                            SamplesJson(result.peer_tokens_per_second), SamplesJson(result.ratio));
  }
  return text + "}";
}

std::string ThreadsJson(const ThreadsResult& threads) {
  const MachineLimits& limits = threads.limits;
  const auto read = [](const ReadLimit& limit) {
    return absl::StrFormat("{\"bytes\":%d,\"bytes_per_second\":%s}", limit.bytes,
                           SamplesJson(limit.bytes_per_second));
  };
  std::string text = absl::StrFormat(
      "{\"threads\":%d,\"open_seconds\":%.4g,\"anonymous_bytes\":%d,\"mapped_bytes\":%d,"
      "\"kv_bytes\":%d,\"huge_bytes\":%d,\"idle_cpu\":%.4g,\n "
      "\"limits\":{\"read_memory\":%s,\"read_weights\":%s,"
      "\"peaks\":[",
      threads.threads, threads.open_seconds, threads.anonymous_bytes, threads.mapped_bytes,
      threads.kv_bytes, threads.huge_bytes, threads.idle_cpu, read(limits.memory),
      read(limits.weights));
  for (size_t i = 0; i < limits.peaks.size(); ++i) {
    const PeakLimit& peak = limits.peaks[i];
    text += absl::StrFormat("%s\n  {\"set\":%s,\"type\":\"%s\",\"ops_per_second\":%s}",
                            i == 0 ? "" : ",", Quoted(peak.name), peak.is_int8 ? "int8" : "float",
                            SamplesJson(peak.ops_per_second));
  }
  text += "]},\n \"cases\":[";
  for (size_t i = 0; i < threads.cases.size(); ++i) {
    text += (i == 0 ? "\n  " : ",\n  ") + CaseJson(threads.cases[i]);
  }
  return text + "]}";
}

}  // namespace

std::string FormatTable(const CpuBenchResult& result) {
  std::string text =
      absl::StrFormat("%s; kernels %s\n%s: %s MB (%s), %s million parameters, KV %s\n", result.cpu,
                      result.kernels, result.model.empty() ? "model" : result.model,
                      Number(static_cast<double>(result.file_bytes) / kMega), result.types,
                      Number(static_cast<double>(result.parameters) / kMega), result.kv_type);
  for (const ThreadsResult& threads : result.threads) {
    text += absl::StrFormat("\n%d thread%s\n%s", threads.threads, threads.threads == 1 ? "" : "s",
                            LimitsText(threads));
    const double own = static_cast<double>(threads.anonymous_bytes);
    text += absl::StrFormat("open  %s s to ready; idle %.1f %% of a core\n",
                            Number(threads.open_seconds), threads.idle_cpu * 100);
    text += absl::StrFormat(
        "memory %s MB (%+.1f %% over the file) and %s MB of KV, %s MB of both in huge pages; %s MB "
        "of "
        "the file mapped\n",
        Number(own / kMega), (own / static_cast<double>(result.file_bytes) - 1) * 100,
        Number(static_cast<double>(threads.kv_bytes) / kMega),
        Number(static_cast<double>(threads.huge_bytes) / kMega),
        Number(static_cast<double>(threads.mapped_bytes) / kMega));
    text += CasesText(result, threads) + Slope(result, threads);
  }
  return text;
}

std::string FormatJson(const CpuBenchResult& result) {
  std::string text = absl::StrFormat(
      "{\"bench\":\"cpu\",\"cpu\":%s,\"kernels\":%s,\"model\":%s,\"types\":%s,\"kv_type\":%s,"
      "\"file_bytes\":%d,\"parameters\":%d,\"peer\":%s,\"runs\":[",
      Quoted(result.cpu), Quoted(result.kernels), Quoted(result.model), Quoted(result.types),
      Quoted(result.kv_type), result.file_bytes, result.parameters, Quoted(result.peer));
  for (size_t i = 0; i < result.threads.size(); ++i) {
    text += (i == 0 ? "\n" : ",\n") + ThreadsJson(result.threads[i]);
  }
  return text + "\n]}\n";
}

}  // namespace reticle::backends::cpu::bench
