// reticle-conformance: runs the suite against one driver.
//
//   reticle-conformance --driver path/to/driver.so|NAME [--model FILE] [--option NAME=VALUE]...
//                       [--threads N] [--kv-bytes N] [--patience SECONDS]
//                       [--adapter FILE --adapter FILE] [--gtest_filter=...]
//
// Exits with 0 when the driver conforms, 1 when a test fails, 2 when the arguments are wrong.
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "backends/conformance/builtin_drivers.h"
#include "backends/conformance/subject.h"

namespace reticle::backends::conformance {
namespace {

constexpr char kUsage[] =
    "usage: reticle-conformance --driver FILE.so|NAME [--model FILE] [--option NAME=VALUE]...\n"
    "                           [--threads N] [--kv-bytes N] [--patience SECONDS]\n"
    "                           [--adapter FILE --adapter FILE]\n";

absl::StatusOr<Driver> FindDriver(const std::string& name) {
  const reticle_device_api* const builtin = FindBuiltinDriver(name);
  return builtin != nullptr ? Driver::FromApi(builtin) : Driver::Load(name);
}

// Nothing when an argument is wrong; the reason is printed.
std::optional<Subject> ParseArguments(int argc, char** argv) {
  std::string driver_name;
  DeviceConfig config;
  uint32_t patience = 60;
  std::vector<std::string> adapters;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 >= argc) {
      std::fprintf(stderr, "%s needs a value\n%s", flag.c_str(), kUsage);
      return std::nullopt;
    }
    const std::string value = argv[i + 1];
    bool good = true;
    if (flag == "--driver") {
      driver_name = value;
    } else if (flag == "--model") {
      config.model_path = value;
    } else if (flag == "--threads") {
      good = absl::SimpleAtoi(value, &config.threads);
    } else if (flag == "--kv-bytes") {
      good = absl::SimpleAtoi(value, &config.kv_bytes);
    } else if (flag == "--patience") {
      good = absl::SimpleAtoi(value, &patience) && patience > 0;
    } else if (flag == "--adapter") {
      adapters.push_back(value);
      good = adapters.size() <= 2;
    } else if (flag == "--option") {
      const size_t equals = value.find('=');
      good = equals != std::string::npos;
      if (good) config.options.emplace_back(value.substr(0, equals), value.substr(equals + 1));
    } else {
      good = false;
    }
    if (!good) {
      std::fprintf(stderr, "bad argument: %s %s\n%s", flag.c_str(), value.c_str(), kUsage);
      return std::nullopt;
    }
  }
  if (driver_name.empty()) {
    std::fputs(kUsage, stderr);
    return std::nullopt;
  }
  auto driver = FindDriver(driver_name);
  if (!driver.ok()) {
    std::fprintf(stderr, "%s\n", driver.status().ToString().c_str());
    return std::nullopt;
  }
  adapters.resize(2);
  return Subject{*driver, std::move(config), patience, {adapters[0], adapters[1]}};
}

}  // namespace
}  // namespace reticle::backends::conformance

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto subject = reticle::backends::conformance::ParseArguments(argc, argv);
  if (!subject.has_value()) return 2;
  reticle::backends::conformance::SetSubject(*std::move(subject));
  return RUN_ALL_TESTS();
}
