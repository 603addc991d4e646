#include "loadtest/scenario.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

template <typename E>
using Names = std::vector<std::pair<std::string_view, E>>;

const Names<ArrivalMode> kModes = {
    {"closed", ArrivalMode::kClosed}, {"poisson", ArrivalMode::kPoisson},
    {"gamma", ArrivalMode::kGamma},   {"constant", ArrivalMode::kConstant},
    {"ramp", ArrivalMode::kRamp},     {"trace", ArrivalMode::kTrace}};
const Names<Api> kApis = {{"chat", Api::kChat}, {"completions", Api::kCompletions}};
const Names<PromptSource> kSources = {{"synthetic", PromptSource::kSynthetic},
                                      {"sharegpt", PromptSource::kShareGpt}};

// Builds settings one by one; each takes the present value as its default text.
class Builder {
 public:
  void Text(std::string flag, std::string key, std::string& target, std::string help) {
    Setting& s = Add(std::move(flag), std::move(key), std::move(help), target);
    s.set = [&target](std::string_view text) {
      target = std::string(text);
      return absl::OkStatus();
    };
  }

  void Flag(std::string flag, std::string key, bool& target, std::string help) {
    Setting& s = Add(std::move(flag), std::move(key), std::move(help), target ? "true" : "false");
    s.is_flag = true;
    s.set = [&target](std::string_view text) {
      if (text != "true" && text != "false") {
        return InvalidArgumentError("\"%s\" is neither true nor false", text);
      }
      target = text == "true";
      return absl::OkStatus();
    };
  }

  void Number(std::string flag, std::string key, double& target, std::string help) {
    Setting& s =
        Add(std::move(flag), std::move(key), std::move(help), absl::StrFormat("%g", target));
    s.set = [&target](std::string_view text) {
      return ParseDouble(text, target) ? absl::OkStatus()
                                       : InvalidArgumentError("\"%s\" is no number", text);
    };
  }

  void Integer(std::string flag, std::string key, int64_t& target, std::string help) {
    Setting& s =
        Add(std::move(flag), std::move(key), std::move(help), absl::StrFormat("%d", target));
    s.set = [&target](std::string_view text) {
      return ParseInteger(text, target) ? absl::OkStatus()
                                        : InvalidArgumentError("\"%s\" is no whole number", text);
    };
  }

  void Duration(std::string flag, std::string key, int64_t& target, std::string help) {
    Setting& s = Add(std::move(flag), std::move(key), std::move(help),
                     absl::StrFormat("%gs", static_cast<double>(target) / 1e9));
    s.set = [&target](std::string_view text) {
      ASSIGN_OR_RETURN(target, ParseDurationNs(text));
      return absl::OkStatus();
    };
  }

  void Dist(std::string flag, std::string key, Distribution& target, std::string help) {
    Setting& s = Add(std::move(flag), std::move(key), std::move(help), target.ToString());
    s.set = [&target](std::string_view text) {
      ASSIGN_OR_RETURN(target, Distribution::Parse(text));
      return absl::OkStatus();
    };
  }

  template <typename E>
  void Choice(std::string flag, std::string key, E& target, const Names<E>& names,
              std::string help) {
    std::string present;
    std::string all;
    for (const auto& [name, value] : names) {
      if (value == target) present = std::string(name);
      all.append(all.empty() ? "" : ", ").append(name);
    }
    Setting& s = Add(std::move(flag), std::move(key), std::move(help), present);
    s.set = [&target, &names, all](std::string_view text) {
      for (const auto& [name, value] : names) {
        if (name != text) continue;
        target = value;
        return absl::OkStatus();
      }
      return InvalidArgumentError("\"%s\" is none of %s", text, all);
    };
  }

  void List(std::string flag, std::string key, std::vector<std::string>& target, std::string help) {
    Setting& s = Add(std::move(flag), std::move(key), std::move(help), "");
    s.is_list = true;
    s.set = [&target, replaced = false](std::string_view text) mutable {
      if (!std::exchange(replaced, true)) target.clear();
      target.emplace_back(text);
      return absl::OkStatus();
    };
  }

  std::vector<Setting> Take() { return std::move(settings_); }

 private:
  Setting& Add(std::string flag, std::string key, std::string help, std::string default_text) {
    Setting setting;
    setting.flag = std::move(flag);
    setting.key = std::move(key);
    setting.help = std::move(help);
    setting.default_text = std::move(default_text);
    settings_.push_back(std::move(setting));
    return settings_.back();
  }

  std::vector<Setting> settings_;
};

absl::Status CheckShare(const char* flag, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();
  return InvalidArgumentError("%s is %g; it must be between 0 and 1", flag, value);
}

absl::Status CheckRange(const char* flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgumentError("%s is %d; it must be between %d and %d", flag, value, low, high);
}

absl::Status CheckRate(const char* flag, double value) {
  if (value > 0 && value <= 1e7) return absl::OkStatus();
  return InvalidArgumentError("%s is %g; it must be above 0 and at most 10000000", flag, value);
}

}  // namespace

std::vector<Setting> ScenarioSettings(Scenario& s) {
  Builder b;
  b.Text("--name", "name", s.name, "Name of the run in reports");
  b.Text("--description", "description", s.description, "What the run is about");
  b.Text("--url", "target.url", s.url, "http://HOST:PORT, https://HOST or grpc://HOST:PORT");
  b.Text("--model", "target.model", s.model, "Model; empty: the first one that the server lists");
  b.Text("--api-key", "target.api_key", s.api_key, "Sent as a bearer token; empty: none");
  b.Choice("--api", "target.api", s.api, kApis, "chat or completions");
  b.Flag("--stream", "target.stream", s.stream, "Ask for streams; --no-stream: whole replies");
  b.Text("--ca-file", "target.ca_file", s.ca_file, "PEM of trusted issuers, for https");
  b.Flag("--insecure", "target.insecure", s.insecure, "Do not verify the server's certificate");
  b.Text("--extra-body", "target.extra_body", s.extra_body,
         "JSON object whose members are added to every HTTP request");

  b.Choice("--arrival", "arrival.mode", s.mode, kModes,
           "closed (users who wait for replies), or open: poisson, gamma, constant, ramp, trace");
  b.Number("--rate", "arrival.rate", s.rate, "Open loop: conversations a second; ramp: at first");
  b.Number("--rate-end", "arrival.rate_end", s.rate_end, "ramp: conversations a second at the end");
  b.Number("--cv", "arrival.cv", s.cv,
           "gamma: coefficient of variation between arrivals; 1 is poisson, more is burstier");
  b.Integer("--users", "arrival.users", s.users, "Closed loop: users");
  b.Duration("--ramp-up", "arrival.ramp_up", s.ramp_up_ns,
             "Closed loop: users start spread over this time");
  b.Text("--trace", "arrival.trace", s.trace,
         "JSON lines with timestamp (ms), input_length, output_length, hash_ids");
  b.Number("--trace-speed", "arrival.trace_speed", s.trace_speed, "2: twice as fast as recorded");

  b.Choice("--prompts", "prompt.source", s.source, kSources, "synthetic or sharegpt");
  b.Text("--dataset", "prompt.dataset", s.dataset, "ShareGPT-style JSON file");
  b.Dist("--prompt-tokens", "prompt.tokens", s.prompt_tokens,
         "N, uniform:LOW:HIGH, normal:MEAN:DEVIATION, lognormal:MEDIAN:SIGMA, exponential:MEAN; "
         "@LOW-HIGH behind it clamps");
  b.Dist("--output-tokens", "output.tokens", s.output_tokens,
         "max_tokens, likewise; 0: as the dataset or the server says");
  b.Flag("--ignore-eos", "output.ignore_eos", s.ignore_eos,
         "Ask for exactly max_tokens (an extension; --no-ignore-eos for servers without it)");
  b.Number("--temperature", "output.temperature", s.temperature, "Sampling temperature");
  b.Integer("--shared-prefixes", "prompt.shared_prefixes", s.shared_prefixes,
            "Different texts that prompts begin with; 0: none");
  b.Integer("--shared-prefix-tokens", "prompt.shared_prefix_tokens", s.shared_prefix_tokens,
            "Length of each");
  b.Flag("--calibrate", "prompt.calibrate", s.calibrate,
         "Measure first how many tokens a word is to the server");

  b.Dist("--turns", "conversation.turns", s.turns, "Turns of a conversation");
  b.Dist("--think-ms", "conversation.think_ms", s.think_ms,
         "Between turns, and between a user's conversations, ms");

  b.Number("--disconnect-share", "client.disconnect_share", s.disconnect_share,
           "Share of requests that are dropped on purpose, 0 to 1");
  b.Dist("--disconnect-after", "client.disconnect_after", s.disconnect_after,
         "Events that are read before the client drops the request");
  b.Number("--slow-share", "client.slow_share", s.slow_share,
           "Share of requests that are read slowly, 0 to 1");
  b.Integer("--slow-bytes-per-s", "client.slow_bytes_per_s", s.slow_bytes_per_s,
            "How slowly, through a small receive buffer");
  b.Duration("--timeout", "client.timeout", s.timeout_ns, "Longest time of a request");
  b.Duration("--connect-timeout", "client.connect_timeout", s.connect_timeout_ns,
             "Longest time of a connection attempt");
  b.Integer("--max-connections", "client.max_connections", s.max_connections,
            "Open at once; requests beyond wait, and their time counts; 0: as many as needed");
  b.Integer("--retries", "client.retries", s.retries,
            "Times that a rejected request is sent again after its Retry-After");
  b.Integer("--threads", "client.threads", s.threads, "Client threads");
  b.Flag("--spin", "client.spin", s.spin,
         "Poll without sleeping: gaps are measured without the client's wake-ups");

  b.Duration("--duration", "run.duration", s.duration_ns, "Time of sending, warm-up included");
  b.Integer("--requests", "run.requests", s.requests, "Stop after so many requests; 0: by time");
  b.Duration("--warmup", "run.warmup", s.warmup_ns, "Start of the run that is not counted");
  b.Duration("--drain", "run.drain", s.drain_ns, "Time for what still runs at the end");
  b.Integer("--seed", "run.seed", s.seed, "Same seed, same workload");
  b.List("--slo", "slo.bounds", s.slo_texts,
         "Bound such as ttft<=50ms (each request), ttft.p99<=100ms, goodput>=99%, errors<=1%; "
         "repeatable");
  return b.Take();
}

absl::Status Scenario::Validate() {
  if (!url.starts_with("http://") && !url.starts_with("https://") && !url.starts_with("grpc://")) {
    return InvalidArgumentError("--url is \"%s\"; it must begin with http://, https:// or grpc://",
                                url);
  }
  if (!extra_body.empty() && url.starts_with("grpc://")) {
    return InvalidArgumentError("--extra-body is for HTTP only");
  }
  RETURN_IF_ERROR(CheckRate("--rate", rate));
  if (mode == ArrivalMode::kRamp) RETURN_IF_ERROR(CheckRate("--rate-end", rate_end));
  if (mode == ArrivalMode::kGamma && !(cv > 0 && cv <= 100)) {
    return InvalidArgumentError("--cv is %g; it must be above 0 and at most 100", cv);
  }
  RETURN_IF_ERROR(CheckRange("--users", users, 1, 1'000'000));
  if ((mode == ArrivalMode::kTrace) != !trace.empty()) {
    return InvalidArgumentError("--arrival trace and --trace FILE belong together");
  }
  if (!(trace_speed > 0 && trace_speed <= 1e6)) {
    return InvalidArgumentError("--trace-speed is %g; it must be above 0 and at most 1000000",
                                trace_speed);
  }
  if ((source == PromptSource::kShareGpt) != !dataset.empty()) {
    return InvalidArgumentError("--prompts sharegpt and --dataset FILE belong together");
  }
  if (mode == ArrivalMode::kTrace && source == PromptSource::kShareGpt) {
    return InvalidArgumentError("a trace gives lengths for synthetic prompts; it takes no dataset");
  }
  if (!(temperature >= 0 && temperature <= 2)) {
    return InvalidArgumentError("--temperature is %g; it must be between 0 and 2", temperature);
  }
  RETURN_IF_ERROR(CheckRange("--shared-prefixes", shared_prefixes, 0, 1'000'000));
  RETURN_IF_ERROR(CheckRange("--shared-prefix-tokens", shared_prefix_tokens, 0, 10'000'000));
  if (prompt_tokens.Upper() > 1e7 && prompt_tokens.Mean() > 1e6) {
    return InvalidArgumentError("--prompt-tokens is %s; more than a million tokens on average",
                                prompt_tokens.ToString());
  }
  RETURN_IF_ERROR(CheckShare("--disconnect-share", disconnect_share));
  RETURN_IF_ERROR(CheckShare("--slow-share", slow_share));
  RETURN_IF_ERROR(CheckRange("--slow-bytes-per-s", slow_bytes_per_s, 1, 1'000'000'000));
  RETURN_IF_ERROR(CheckRange("--max-connections", max_connections, 0, 1'000'000));
  RETURN_IF_ERROR(CheckRange("--retries", retries, 0, 1000));
  RETURN_IF_ERROR(CheckRange("--threads", threads, 1, 64));
  if (max_connections > 0 && max_connections < threads) {
    return InvalidArgumentError("--max-connections is %d, below --threads (%d)", max_connections,
                                threads);
  }
  RETURN_IF_ERROR(CheckRange("--requests", requests, 0, INT64_MAX));
  if (timeout_ns == 0 || connect_timeout_ns == 0 || duration_ns == 0) {
    return InvalidArgumentError("--timeout, --connect-timeout and --duration must be above 0");
  }
  if (warmup_ns >= duration_ns) {
    return InvalidArgumentError("--warmup is as long as --duration; nothing would be measured");
  }
  ASSIGN_OR_RETURN(slos, ParseSlos(slo_texts));
  return absl::OkStatus();
}

}  // namespace reticle::loadtest
