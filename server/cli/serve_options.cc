#include "server/cli/serve_options.h"

#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <utility>

#include "base/status.h"
#include "server/tenants/tier.h"

namespace reticle::server::cli {
namespace {

// One option: its flag, its key in the file, and how each sets it.
struct Setting {
  std::string flag;
  std::string key;  // "section.name"; the flag without its dashes is a key of the root too
  std::function<void(CLI::App&)> add;
  std::function<bool(const toml::node&)> load;  // false: wrong type or out of range
};

template <typename T>
bool LoadValue(const toml::node& node, T& out) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
    const auto value = node.value_exact<T>();
    if (value.has_value()) out = *value;
    return value.has_value();
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
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
  return setting;
}

std::vector<Setting> Settings(ServeOptions& o) {
  http::HttpOptions& h = o.http_options;
  return {
      Make("--model", "model.file", o.model, "GGUF model file; without it the house model"),
      Make("--model-id", "model.id", o.model_id,
           "Name under which clients ask for it; empty: house, or the file's name"),
      Make("--alias", "model.aliases", o.aliases, "Further name of the model; repeatable"),
      Make("--device", "device.driver", o.device, "cpu, fake, or the path of a driver library"),
      Make("--device-index", "device.index", o.device_index, "Which of several cards"),
      Make("--device-option", "device.options", o.device_options,
           "name=value for the driver; repeatable"),
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
      Make("--prefix-cache", "scheduler.prefix_cache", o.prefix_cache,
           "Reuse the KV cache of common prompt prefixes"),
      Make("--http", "http.listen", o.http, "HOST:PORT, PORT or none; port 0 picks a free one"),
      Make("--io-threads", "http.io_threads", h.io_threads, "Event loops of the HTTP front"),
      Make("--worker-threads", "http.worker_threads", h.worker_threads,
           "Threads that tokenise long prompts"),
      Make("--max-connections", "http.max_connections", h.max_connections,
           "Open HTTP connections; more are refused"),
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
      Make("--drain-timeout", "server.drain_timeout_s", o.drain_timeout_s,
           "Seconds that running requests may take after SIGTERM"),
      Make("--log-level", "server.log_level", o.log_level, "debug, info, warning, error, off"),
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
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFoundError("config file %s cannot be read", path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
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
  if (http == "none" && grpc == "none") {
    return InvalidArgumentError("--http and --grpc are both none; one must listen");
  }
  if (kv_type != "default" && kv_type != "f16" && kv_type != "q8_0") {
    return InvalidArgumentError("--kv-type is \"%s\"; it must be default, f16 or q8_0", kv_type);
  }
  RETURN_IF_ERROR(ParseByteSize(kv_size).status());
  for (const std::string& option : device_options) {
    if (const size_t sign = option.find('='); sign == 0 || sign == std::string::npos) {
      return InvalidArgumentError("--device-option is \"%s\"; it must be name=value", option);
    }
  }
  if (drain_timeout_s < 0 || drain_timeout_s > 86400) {
    return InvalidArgumentError("--drain-timeout is %d; it must be between 0 and 86400",
                                drain_timeout_s);
  }
  if (log_level != "debug" && log_level != "info" && log_level != "warning" &&
      log_level != "error" && log_level != "off") {
    return InvalidArgumentError(
        "--log-level is \"%s\"; it must be debug, info, warning, error or off", log_level);
  }
  tenants::TierTable tiers;
  for (const std::string& limit : tier_limits) RETURN_IF_ERROR(tiers.Set(limit));
  return http_options.Validate();
}

std::optional<CommandLineExit> ParseServeArguments(const std::vector<std::string>& arguments,
                                                   ServeOptions& options) {
  const std::vector<Setting> settings = Settings(options);
  // CLI11 takes arguments from the back.
  const std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  std::string config;
  const auto fail = [](const absl::Status& status) {
    return CommandLineExit{.status = 2,
                           .output = "reticle serve: " + std::string(status.message()) + "\n"};
  };
  constexpr char kConfigHelp[] =
      "TOML file, a line such as threads = 2 for each option; flags override it";

  CLI::App first;
  first.set_help_flag();
  first.allow_extras();
  first.add_option("--config", config, kConfigHelp);
  CLI::App app("Serves a model over HTTP and gRPC", "reticle serve");
  app.add_option("--config", config, kConfigHelp);
  try {
    std::vector<std::string> rest = reversed;
    first.parse(rest);
    if (!config.empty()) {
      if (const absl::Status status = LoadFile(config, settings); !status.ok()) return fail(status);
    }
    for (const Setting& setting : settings) setting.add(app);
    rest = reversed;
    app.parse(rest);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    CommandLineExit exit;
    exit.status = app.exit(error, text, text) == 0 ? 0 : 2;
    exit.output = text.str();
    return exit;
  }
  if (const absl::Status status = options.Validate(); !status.ok()) return fail(status);
  if (options.http != "none") {
    HostPort listen = *ParseHostPort(options.http);
    options.http_options.host = std::move(listen.host);
    options.http_options.port = listen.port;
  }
  return std::nullopt;
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
