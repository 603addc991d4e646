#include "server/cli/serve_options.h"

#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <functional>
#include <utility>

#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "server/telemetry/telemetry.h"
#include "server/tenants/tier.h"

namespace reticle::server::cli {
namespace {

constexpr int64_t kMostMs = 86'400'000;

// One option: its flag, its key in the file, and how each sets it.
struct Setting {
  std::string flag;
  std::string key;  // "section.name"; the flag without its dashes is a key of the root too
  std::function<void(CLI::App&)> add;
  std::function<bool(const toml::node&)> load;  // false: wrong type or out of range
  std::function<std::string()> show;            // its value, for comparison
};

// What a running server takes over (docs/lifecycle.md).
constexpr std::string_view kReloadable[] = {
    "--log-level",   "--log-requests",     "--log-prompts",    "--trace-ratio",
    "--tier-limit",  "--drain-timeout",    "--drain-delay-ms", "--max-connections",
    "--admin-token", "--admin-token-file",
};

bool IsReloadable(std::string_view flag) {
  for (const std::string_view known : kReloadable) {
    if (known == flag) return true;
  }
  return false;
}

template <typename T>
std::string Show(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    std::string text;
    for (const std::string& item : value) text += item + "\n";
    return text;
  } else {
    return std::to_string(value);
  }
}

template <typename T>
bool LoadValue(const toml::node& node, T& out) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
    const auto value = node.value_exact<T>();
    if (value.has_value()) out = *value;
    return value.has_value();
  } else if constexpr (std::is_same_v<T, double>) {
    const auto value = node.value<double>();
    if (value.has_value()) out = *value;
    return value.has_value();
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    if (const auto one = node.value_exact<std::string>(); one.has_value()) {
      out = {*one};
      return true;
    }
    const toml::array* array = node.as_array();
    if (array == nullptr) return false;
    out.clear();
    for (const toml::node& item : *array) {
      const auto text = item.value_exact<std::string>();
      if (!text.has_value()) return false;
      out.push_back(*text);
    }
    return true;
  } else {
    const auto value = node.value_exact<int64_t>();
    if (!value.has_value() || !std::in_range<T>(*value)) return false;
    out = static_cast<T>(*value);
    return true;
  }
}

template <typename T>
Setting Make(std::string flag, std::string key, T& target, std::string help) {
  Setting setting;
  setting.flag = flag;
  setting.key = std::move(key);
  setting.add = [flag, help, &target](CLI::App& app) {
    if constexpr (std::is_same_v<T, bool>) {
      const size_t dashes = 2;
      app.add_flag(flag + ",!--no-" + flag.substr(dashes), target, help)
          ->default_str(target ? "true" : "false");
    } else {
      app.add_option(flag, target, help)->capture_default_str();
    }
  };
  setting.load = [&target](const toml::node& node) { return LoadValue(node, target); };
  setting.show = [&target] { return Show(target); };
  return setting;
}

std::vector<Setting> Settings(ServeOptions& o) {
  http::HttpOptions& h = o.http_options;
  return {
      Make("--model", "model.file", o.model,
           "GGUF model file, or a device image (.rom); without it the house model"),
      Make("--model-id", "model.id", o.model_id,
           "Name under which clients ask for it; empty: house, or the file's name"),
      Make("--alias", "model.aliases", o.aliases, "Further name of the model; repeatable"),
      Make("--adapter", "model.adapters", o.adapters,
           "NAME=FILE[:SCALE]: a LoRA adapter, served as model NAME; repeatable"),
      Make("--device", "device.driver", o.devices,
           "cpu, fake, a profile of the emulated card (reticle devices), or the path of a driver "
           "library; repeatable: the model on a further device is called ID@DEVICE. Without it "
           "taalas-hc1 for the house model and for device images, cpu for a GGUF file, which is "
           "as large as it likes"),
      Make("--cards", "device.cards", o.cards,
           "Cards of each device, all of the same model; 0: as many as it has"),
      Make("--device-index", "device.index", o.device_index, "The first of the cards"),
      Make("--content", "device.content", o.content,
           "Emulated devices: functional computes the model, replay plays text"),
      Make("--clock", "device.clock", o.clock,
           "Emulated devices: wall keeps real time, virtual runs as fast as it can"),
      Make("--device-option", "device.options", o.device_options,
           "name=value for every driver, DEVICE:name=value for that one; repeatable"),
      Make("--threads", "device.threads", o.threads, "Compute threads; 0: the driver's choice"),
      Make("--kv-type", "device.kv_type", o.kv_type, "Type of the KV cache: default, f16, q8_0"),
      Make("--kv-size", "device.kv_size", o.kv_size,
           "Memory for the KV cache, as 1048576, 512MiB or 2GiB; 0: the driver's choice"),
      Make("--kv-block-tokens", "device.kv_block_tokens", o.kv_block_tokens,
           "Tokens in a KV block; 0: the driver's choice"),
      Make("--context", "device.context", o.context,
           "Longest prompt and output together, tokens; 0: the model's own"),
      Make("--max-sequences", "device.max_sequences", o.max_sequences,
           "Sequences that run at once; 0: the driver's choice"),
      Make("--max-waiting", "scheduler.max_waiting", o.max_waiting,
           "Sequences that may wait; more are refused with 429"),
      Make("--step-tokens", "scheduler.step_tokens", o.step_tokens,
           "Tokens fed in one step, over all sequences; 0: the device's choice"),
      Make("--run-ahead", "scheduler.run_ahead", o.run_ahead,
           "Tokens that a device may generate ahead of the host; 0: as the device allows"),
      Make("--engine-thread", "scheduler.engine_thread", o.engine_thread,
           "auto: an HTTP thread drives a device that is cheap to poll; own: a thread for each "
           "device"),
      Make("--prefix-cache", "scheduler.prefix_cache", o.prefix_cache,
           "Reuse the KV cache of common prompt prefixes"),
      Make("--watchdog-ms", "failover.watchdog_ms", o.watchdog_ms,
           "A device that has work and is silent for so long is lost; -1: 1000 if it is cheap to "
           "poll, else 300000; 0: none"),
      Make("--failover-timeout-ms", "failover.timeout_ms", o.failover_timeout_ms,
           "Time that requests of a lost device wait for one that works"),
      Make("--fence-after", "failover.fence_after", o.fence_after,
           "Losses within a minute that take a device out of service for five; 0: never"),
      Make("--http", "http.listen", o.http, "HOST:PORT, PORT or none; port 0 picks a free one"),
      Make("--reuse-port", "http.reuse_port", h.reuse_port,
           "Listen, once ready, beside other processes on the same addresses: a new one takes over "
           "while the old one drains (docs/lifecycle.md)"),
      Make("--io-threads", "http.io_threads", h.io_threads, "Event loops of the HTTP front"),
      Make("--worker-threads", "http.worker_threads", h.worker_threads,
           "Threads that tokenise long prompts"),
      Make("--max-connections", "http.max_connections", h.max_connections,
           "Open HTTP connections; more are refused"),
      Make("--max-request-memory", "http.max_request_memory", h.max_request_memory,
           "Bytes of all request bodies together that are read or answered; 503 beyond"),
      Make("--max-header-bytes", "http.max_header_bytes", h.max_header_bytes,
           "Longest request header; 431 beyond"),
      Make("--max-body-bytes", "http.max_body_bytes", h.max_body_bytes,
           "Longest request body; 413 beyond"),
      Make("--header-timeout-ms", "http.header_timeout_ms", h.header_timeout_ms,
           "Time for a request's header to arrive"),
      Make("--body-timeout-ms", "http.body_timeout_ms", h.body_timeout_ms,
           "Time for a request's body to arrive"),
      Make("--idle-timeout-ms", "http.idle_timeout_ms", h.idle_timeout_ms,
           "Time that a connection may wait between requests"),
      Make("--write-timeout-ms", "http.write_timeout_ms", h.write_timeout_ms,
           "Time that a client may read nothing"),
      Make("--tls-cert", "http.tls_cert", h.tls_cert, "PEM certificate chain; serves HTTPS"),
      Make("--tls-key", "http.tls_key", h.tls_key, "PEM key of the certificate"),
      Make("--grpc", "grpc.listen", o.grpc, "HOST:PORT, PORT or none; port 0 picks a free one"),
      Make("--cors-origin", "http.cors_origins", h.cors_origins,
           "Origin whose pages may call this server, or *; repeatable; none: CORS is off"),
      Make("--trusted-proxy", "http.trusted_proxies", h.trusted_proxies,
           "Proxy, or network of them, that is believed about its clients' addresses; repeatable"),
      Make("--forwarded-header", "http.forwarded_header", h.forwarded_header,
           "Where trusted proxies say so: x-forwarded-for or forwarded"),
      Make("--public-metrics", "http.public_metrics", o.public_metrics,
           "Serve GET /metrics to everybody, not on the operator's listener alone"),
      Make("--free-tier", "tenants.enabled", o.tenants,
           "Serve holders of a key only, within the limits of their tier (docs/free-tier.md)"),
      Make("--tenants-store", "tenants.store", o.tenants_store,
           "Accounts, keys and usage: an SQLite file, or postgresql://..."),
      Make("--tenants-secret", "tenants.secret_file", o.tenants_secret,
           "File with the secret of the keys' digests, made when it is not there; empty: STORE"
           ".secret"),
      Make("--tier-limit", "tenants.limits", o.tier_limits,
           "TIER.LIMIT=NUMBER, such as free.requests_per_minute=30; repeatable"),
      Make("--auto-approve", "tenants.auto_approve_per_day", o.auto_approve_per_day,
           "Applications a day that need no operator's approval"),
      Make("--applications-per-hour", "tenants.applications_per_hour", o.applications_per_hour,
           "Applications for a key that one address may send; 0: no limit"),
      Make("--redis", "tenants.redis", o.redis,
           "redis://HOST:PORT shares quotas over replicas; empty: each counts by itself"),
      Make("--admin", "admin.listen", o.admin,
           "HOST:PORT, PORT or none: the operator's listener (docs/admin-api.md)"),
      Make("--admin-token", "admin.token", o.admin_token,
           "Bearer token that it asks for; needed unless it listens on loopback"),
      Make("--admin-token-file", "admin.token_file", o.admin_token_file,
           "File that holds the token, instead of --admin-token"),
      Make("--metrics-buckets", "metrics.buckets", o.metrics_buckets,
           "NAME=BOUND,BOUND,...: the buckets of a histogram (docs/metrics.md); repeatable"),
      Make("--drain-timeout", "server.drain_timeout_s", o.drain_timeout_s,
           "Seconds that running requests may take after SIGTERM"),
      Make("--drain-delay-ms", "server.drain_delay_ms", o.drain_delay_ms,
           "Time between going unready and taking nothing new, in which load balancers notice"),
      Make("--log-level", "server.log_level", o.log_level, "debug, info, warning, error, off"),
      Make("--log-format", "server.log_format", o.log_format, "text, logfmt, json"),
      Make("--log-requests", "server.log_requests", o.log_requests, "A line for each request"),
      Make("--log-prompts", "server.log_prompts", o.log_prompts,
           "Prompts in those lines: they hold what users wrote"),
      Make("--otlp-endpoint", "trace.otlp_endpoint", o.otlp_endpoint,
           "http://HOST:PORT of an OpenTelemetry collector that gets spans; empty: none does"),
      Make("--trace-ratio", "trace.ratio", o.trace_ratio,
           "Share of the traces that begin here which is sent; a caller's own flag decides for the "
           "others"),
  };
}

absl::Status LoadTable(const toml::table& table, const std::string& prefix,
                       const std::vector<Setting>& settings) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    if (const toml::table* section = node.as_table(); section != nullptr && prefix.empty()) {
      RETURN_IF_ERROR(LoadTable(*section, key + ".", settings));
      continue;
    }
    const Setting* found = nullptr;
    for (const Setting& setting : settings) {
      if (setting.key == key || setting.flag == "--" + key) found = &setting;
    }
    if (found == nullptr) return InvalidArgumentError("there is no option \"%s\"", key);
    if (!found->load(node)) {
      return InvalidArgumentError("the value of \"%s\" has the wrong type or is out of range", key);
    }
  }
  return absl::OkStatus();
}

absl::Status LoadFile(const std::string& path, const std::vector<Setting>& settings) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("config file", path));
  try {
    const absl::Status status = LoadTable(toml::parse(text), "", settings);
    if (!status.ok()) return InvalidArgumentError("config file %s: %s", path, status.message());
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError("config file %s, line %d: %s", path, error.source().begin.line,
                                error.description());
  }
  return absl::OkStatus();
}

absl::Status CheckListen(const char* flag, const std::string& listen) {
  if (listen == "none") return absl::OkStatus();
  const absl::Status status = ParseHostPort(listen).status();
  return status.ok() ? status : InvalidArgumentError("%s: %s", flag, status.message());
}

}  // namespace

absl::Status ServeOptions::Validate() const {
  RETURN_IF_ERROR(CheckListen("--http", http));
  RETURN_IF_ERROR(CheckListen("--grpc", grpc));
  RETURN_IF_ERROR(CheckListen("--admin", admin));
  if (!admin_token.empty() && !admin_token_file.empty()) {
    return InvalidArgumentError("--admin-token and --admin-token-file are both given");
  }
  if (cards > 1024) return InvalidArgumentError("--cards is %d; it must be at most 1024", cards);
  if (!content.empty() && content != "functional" && content != "replay") {
    return InvalidArgumentError("--content is \"%s\"; it must be functional or replay", content);
  }
  if (!clock.empty() && clock != "wall" && clock != "virtual") {
    return InvalidArgumentError("--clock is \"%s\"; it must be wall or virtual", clock);
  }
  if (watchdog_ms < -1 || watchdog_ms > kMostMs) {
    return InvalidArgumentError("--watchdog-ms is %d; it must be between -1 and %d", watchdog_ms,
                                kMostMs);
  }
  if (failover_timeout_ms < 0 || failover_timeout_ms > kMostMs) {
    return InvalidArgumentError("--failover-timeout-ms is %d; it must be between 0 and %d",
                                failover_timeout_ms, kMostMs);
  }
  if (http == "none" && grpc == "none") {
    return InvalidArgumentError("--http and --grpc are both none; one must listen");
  }
  if (kv_type != "default" && kv_type != "f16" && kv_type != "q8_0") {
    return InvalidArgumentError("--kv-type is \"%s\"; it must be default, f16 or q8_0", kv_type);
  }
  RETURN_IF_ERROR(ParseByteSize(kv_size).status());
  if (engine_thread != "auto" && engine_thread != "own") {
    return InvalidArgumentError("--engine-thread is \"%s\"; it must be auto or own", engine_thread);
  }
  for (const std::string& option : device_options) {
    if (const size_t sign = option.find('='); sign == 0 || sign == std::string::npos) {
      return InvalidArgumentError("--device-option is \"%s\"; it must be name=value", option);
    }
  }
  if (drain_timeout_s < 0 || drain_timeout_s > 86400) {
    return InvalidArgumentError("--drain-timeout is %d; it must be between 0 and 86400",
                                drain_timeout_s);
  }
  if (drain_delay_ms < 0 || drain_delay_ms > kMostMs) {
    return InvalidArgumentError("--drain-delay-ms is %d; it must be between 0 and %d",
                                drain_delay_ms, kMostMs);
  }
  if (const absl::Status status = ParseLogLevel(log_level).status(); !status.ok()) {
    return InvalidArgumentError("--log-level: %s", status.message());
  }
  if (const absl::Status status = ParseLogFormat(log_format).status(); !status.ok()) {
    return InvalidArgumentError("--log-format: %s", status.message());
  }
  TelemetryOptions telemetry;
  telemetry.trace_ratio = trace_ratio;
  telemetry.otlp.endpoint = otlp_endpoint;
  if (const absl::Status status = telemetry.Validate(); !status.ok()) {
    return InvalidArgumentError("--otlp-endpoint, --trace-ratio: %s", status.message());
  }
  tenants::TierTable tiers;
  for (const std::string& limit : tier_limits) RETURN_IF_ERROR(tiers.Set(limit));
  return http_options.Validate();
}

std::optional<CommandLineExit> ParseServeArguments(const std::vector<std::string>& arguments,
                                                   ServeOptions& options) {
  options.arguments = arguments;
  const std::vector<Setting> settings = Settings(options);
  std::string config;
  constexpr char kConfigHelp[] =
      "TOML file, a line such as threads = 2 for each option; flags override it";

  CLI::App first("", "reticle serve");
  first.set_help_flag();
  first.allow_extras();
  first.add_option("--config", config, kConfigHelp);
  CLI::App app("Serves a model over HTTP and gRPC", "reticle serve");
  app.add_option("--config", config, kConfigHelp);
  if (auto exit = ParseArguments(first, arguments); exit.has_value()) return exit;
  if (!config.empty()) {
    if (const absl::Status status = LoadFile(config, settings); !status.ok()) {
      return Mistake(app, status);
    }
  }
  for (const Setting& setting : settings) setting.add(app);
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  if (const absl::Status status = options.Validate(); !status.ok()) return Mistake(app, status);
  for (const std::string& text : options.adapters) {
    absl::StatusOr<AdapterOption> adapter = ParseAdapter(text);
    if (!adapter.ok()) return Mistake(app, adapter.status());
    options.parsed_adapters.push_back(*std::move(adapter));
  }
  if (options.http != "none") {
    HostPort listen = *ParseHostPort(options.http);
    options.http_options.host = std::move(listen.host);
    options.http_options.port = listen.port;
  }
  return std::nullopt;
}

std::vector<OptionChange> Differences(ServeOptions before, ServeOptions after) {
  const std::vector<Setting> old_settings = Settings(before);
  const std::vector<Setting> new_settings = Settings(after);
  std::vector<OptionChange> changes;
  for (size_t i = 0; i < old_settings.size(); ++i) {
    if (old_settings[i].show() == new_settings[i].show()) continue;
    changes.push_back({old_settings[i].flag, IsReloadable(old_settings[i].flag)});
  }
  return changes;
}

void TakeReloadable(const ServeOptions& from, ServeOptions& into) {
  into.log_level = from.log_level;
  into.log_requests = from.log_requests;
  into.log_prompts = from.log_prompts;
  into.trace_ratio = from.trace_ratio;
  into.tier_limits = from.tier_limits;
  into.drain_timeout_s = from.drain_timeout_s;
  into.drain_delay_ms = from.drain_delay_ms;
  into.admin_token = from.admin_token;
  into.admin_token_file = from.admin_token_file;
  into.http_options.max_connections = from.http_options.max_connections;
}

absl::StatusOr<AdapterOption> ParseAdapter(const std::string& text) {
  AdapterOption adapter;
  const size_t sign = text.find('=');
  if (sign == 0 || sign == std::string::npos || sign + 1 == text.size()) {
    return InvalidArgumentError("--adapter is \"%s\"; it must be NAME=FILE or NAME=FILE:SCALE",
                                text);
  }
  adapter.name = text.substr(0, sign);
  adapter.path = text.substr(sign + 1);
  const size_t colon = adapter.path.rfind(':');
  if (colon == std::string::npos || colon == 0) return adapter;
  const char* const end = adapter.path.data() + adapter.path.size();
  float scale = 0;
  const auto parsed = std::from_chars(adapter.path.data() + colon + 1, end, scale);
  if (parsed.ec != std::errc() || parsed.ptr != end) return adapter;
  if (!(scale > -1000 && scale < 1000)) {
    return InvalidArgumentError("--adapter %s has scale %g; it must be between -1000 and 1000",
                                adapter.name, scale);
  }
  adapter.scale = scale;
  adapter.path.resize(colon);
  return adapter;
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  HostPort result;
  const size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return InvalidArgumentError("\"%s\" is no HOST:PORT; write an IPv6 address as [ADDRESS]:PORT",
                                text);
  }
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), result.port);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size()) {
    return InvalidArgumentError("\"%s\" is no HOST:PORT with a port from 0 to 65535", text);
  }
  result.host = host.empty() ? "127.0.0.1" : host;
  return result;
}

absl::StatusOr<uint64_t> ParseByteSize(const std::string& text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  const std::string unit(parsed.ptr, end);
  int shift = -1;
  if (unit.empty()) shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (parsed.ec != std::errc() || shift < 0 || (value << shift) >> shift != value) {
    return InvalidArgumentError("\"%s\" is no size such as 1048576, 512MiB or 2GiB", text);
  }
  return value << shift;
}

}  // namespace reticle::server::cli
