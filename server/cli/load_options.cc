#include "server/cli/load_options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <utility>

#include "base/status.h"
#include "loadtest/endpoint.h"
#include "loadtest/text.h"

namespace reticle::server::cli {
namespace {

constexpr char kFooter[] =
    "Ways to use it\n"
    "  reticle load --scenario chat --url http://127.0.0.1:8080 [OPTIONS]   test a server\n"
    "  reticle load --list-scenarios                                        what is built in\n"
    "  reticle load --null-server HOST:PORT [OPTIONS]                       calibrate the client\n"
    "  reticle load --compare A.json B.json [--max-regression 10%]          compare two results\n"
    "Exit status: 0 every SLO met, 1 one missed, 2 wrong usage, 3 no server, 4 missed, but the "
    "client was the bottleneck.\n";

bool Has(const std::vector<std::string>& arguments, const std::string& flag) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == flag || argument.starts_with(flag + "=");
  });
}

// Throws what CLI11 expects of a value that is refused.
void Apply(const std::string& flag, const absl::Status& status) {
  if (!status.ok()) throw CLI::ValidationError(flag, std::string(status.message()));
}

std::optional<CommandLineExit> ParseNullServer(const std::vector<std::string>& arguments,
                                               LoadOptions& options) {
  options.mode = LoadOptions::Mode::kNullServer;
  loadtest::NullServerOptions& null = options.null_server;
  std::string listen;
  std::string writes = "gather";
  CLI::App app("Answers with the bytes of reticle serve and does no work", "reticle load");
  app.add_option("--null-server", listen, "HOST:PORT or PORT; port 0 picks a free one");
  app.add_option("--model", null.model, "Name of the model")->capture_default_str();
  app.add_option("--rate", null.token_rate,
                 "Tokens a second of each stream; 0: as fast as the client takes them")
      ->capture_default_str();
  app.add_option("--tokens-per-event", null.tokens_per_event, "Tokens that share an event")
      ->capture_default_str();
  app.add_option("--writes", writes,
                 "each: one write an event; gather: events that are ready share a write")
      ->check(CLI::IsMember({"each", "gather"}))
      ->capture_default_str();
  const auto add_time = [&](const char* flag, int64_t& target, const char* help) {
    app.add_option_function<std::string>(
        flag,
        [flag, &target](const std::string& text) {
          const auto parsed = loadtest::ParseDurationNs(text);
          Apply(flag, parsed.status());
          target = *parsed;
        },
        help);
  };
  add_time("--first-token", null.first_token_ns, "Time from a request to its first token");
  add_time("--gather-time", null.gather_ns,
           "With --rate: how long an event may wait for others to share its write");
  app.add_option("--threads", null.threads, "Event loops")->capture_default_str();
  app.add_flag("--spin", null.spin, "Poll without sleeping");
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  const auto endpoint = loadtest::ParseListen(listen);
  if (!endpoint.ok()) return Mistake(app, endpoint.status());
  null.host = endpoint->host;
  null.port = endpoint->port;
  null.write_each_event = writes == "each";
  if (const absl::Status status = null.Validate(); !status.ok()) return Mistake(app, status);
  return std::nullopt;
}

std::optional<CommandLineExit> ParseCompare(const std::vector<std::string>& arguments,
                                            LoadOptions& options) {
  options.mode = LoadOptions::Mode::kCompare;
  CLI::App app("Compares two results of reticle load", "reticle load");
  app.add_option("--compare", options.compare, "Two JSON files: before and after")->expected(2);
  app.add_option_function<std::string>(
      "--max-regression",
      [&options](const std::string& text) {
        std::string_view number = text;
        const bool percent = number.ends_with('%');
        if (percent) number.remove_suffix(1);
        double value = 0;
        if (!loadtest::ParseDouble(number, value) || value < 0) {
          throw CLI::ValidationError("--max-regression", "\"" + text + "\" is no share");
        }
        options.max_regression = percent ? value / 100 : value;
      },
      "Exit with 1 when a rate, a time or the errors are worse by more than this, as in 10%");
  return ParseArguments(app, arguments);
}

}  // namespace

std::optional<CommandLineExit> ParseLoadArguments(const std::vector<std::string>& arguments,
                                                  LoadOptions& options) {
  if (Has(arguments, "--null-server")) return ParseNullServer(arguments, options);
  if (Has(arguments, "--compare")) return ParseCompare(arguments, options);

  std::string scenario;
  CLI::App first("", "reticle load");
  first.set_help_flag();
  first.allow_extras();
  first.add_option("--scenario", scenario);
  bool list = false;
  first.add_flag("--list-scenarios", list);
  if (auto exit = ParseArguments(first, arguments); exit.has_value()) return exit;
  if (list) {
    options.mode = LoadOptions::Mode::kListScenarios;
    return std::nullopt;
  }
  if (!scenario.empty()) {
    const absl::Status status = loadtest::LoadScenarioByName(scenario, options.scenario);
    if (!status.ok()) return Mistake(first, status);
  }

  options.progress = isatty(STDERR_FILENO) == 1;
  CLI::App app("Puts load on an OpenAI-compatible server, or on ours over gRPC", "reticle load");
  app.footer(kFooter);
  app.add_option("--scenario", scenario, "Built-in scenario, or a TOML file; flags override it");
  app.add_flag("--list-scenarios", list, "Name the built-in scenarios and end");
  app.add_option("--json", options.json_path, "Write the result as JSON to this file; -: print it");
  app.add_option("--html", options.html_path, "Write the result as a page to this file");
  app.add_flag("--progress,!--no-progress", options.progress,
               "A line a second while it runs (default: on a terminal)");
  app.add_flag("--quiet", options.quiet, "Do not print the table");
  app.add_option("--server-pid", options.server_pid,
                 "Server process on this machine whose CPU time is reported");
  std::vector<loadtest::Setting> settings = loadtest::ScenarioSettings(options.scenario);
  for (loadtest::Setting& setting : settings) {
    const auto set = [&setting](const std::string& text) {
      Apply(setting.flag, setting.set(text));
    };
    if (setting.is_flag) {
      constexpr size_t kDashes = 2;
      app.add_flag_callback(
          setting.flag, [set] { set("true"); }, setting.help + " [" + setting.default_text + "]");
      app.add_flag_callback("--no-" + setting.flag.substr(kDashes), [set] { set("false"); })
          ->group("");
    } else if (setting.is_list) {
      app.add_option_function<std::vector<std::string>>(
             setting.flag,
             [set](const std::vector<std::string>& texts) {
               for (const std::string& text : texts) set(text);
             },
             setting.help)
          ->expected(1)
          ->take_all();
    } else {
      app.add_option_function<std::string>(setting.flag, set, setting.help)
          ->default_str(setting.default_text);
    }
  }
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  if (const absl::Status status = options.scenario.Validate(); !status.ok())
    return Mistake(app, status);
  return std::nullopt;
}

}  // namespace reticle::server::cli
