// failover_fire: kills and hangs of random cards under load, and what the streams made of it. Exits
// 1 when a single byte was wrong.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "base/log.h"
#include "server/cli/built_in_devices.h"
#include "tests/failover/fire.h"

int main(int argc, char** argv) {
  reticle::failover::FireOptions options;
  std::string device = "fake";
  std::vector<std::string> device_options;
  int64_t watchdog_ms = options.watchdog_ns / 1'000'000;
  CLI::App app(
      "Kills and hangs cards under load and compares every stream with the undisturbed run",
      "failover_fire");
  app.add_option("--device", device, "A device as for reticle serve")->capture_default_str();
  app.add_option("--model", options.model_path, "Model file or device image");
  app.add_option("--option", device_options, "name=value for the driver; repeatable");
  app.add_option("--cards", options.cards, "At least 2")->capture_default_str();
  app.add_option("--streams", options.streams, "At any time")->capture_default_str();
  app.add_option("--losses", options.losses, "Cards to kill")->capture_default_str();
  app.add_option("--hangs", options.hangs, "Cards to hang")->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "Longest output")->capture_default_str();
  app.add_option("--watchdog-ms", watchdog_ms, "When a silent card is lost")->capture_default_str();
  app.add_option("--seed", options.seed, "Of requests and faults")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  reticle::SetLogLevel(reticle::LogLevel::kOff);
  options.watchdog_ns = watchdog_ms * 1'000'000;
  for (const std::string& option : device_options) {
    const size_t sign = option.find('=');
    if (sign == std::string::npos) {
      std::fprintf(stderr, "failover_fire: --option %s is not name=value\n", option.c_str());
      return 2;
    }
    options.device_options.emplace_back(option.substr(0, sign), option.substr(sign + 1));
  }
  for (auto& choice : reticle::server::cli::BuiltInDevices()) {
    if (choice.name == device) options.device = std::move(choice);
  }
  if (!options.device.inject) {
    std::fprintf(stderr, "failover_fire: there is no device %s with faults to inject\n",
                 device.c_str());
    return 2;
  }
  const auto report = reticle::failover::RunUnderFire(options);
  if (!report.ok()) {
    std::fprintf(stderr, "failover_fire: %s\n", report.status().ToString().c_str());
    return 1;
  }
  std::printf(
      "%s x %u, %u streams: %u kills, %u hangs in %.1f s\n"
      "requests %llu, tokens %llu, sequences recomputed %llu\n"
      "crash noticed after %.2f ms (max %.2f), card back after %.1f ms (max %.1f)\n"
      "wrong streams %llu, failed streams %llu%s%s\n",
      device.c_str(), options.cards, options.streams, report->losses, report->hangs,
      report->seconds, static_cast<unsigned long long>(report->requests),
      static_cast<unsigned long long>(report->tokens),
      static_cast<unsigned long long>(report->recoveries), report->crash_detection_ms_mean,
      report->crash_detection_ms_max, report->recovery_ms_mean, report->recovery_ms_max,
      static_cast<unsigned long long>(report->wrong),
      static_cast<unsigned long long>(report->failed), report->first_failure.empty() ? "" : ": ",
      report->first_failure.c_str());
  if (report->losses != options.losses || report->hangs != options.hangs) return 1;
  return report->wrong + report->failed == 0 && report->recoveries > 0 ? 0 : 1;
}
