// The command line of `reticle load`.
#ifndef RETICLE_SERVER_CLI_LOAD_OPTIONS_H_
#define RETICLE_SERVER_CLI_LOAD_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/null_server.h"
#include "loadtest/scenario.h"
#include "server/cli/command_line.h"

namespace reticle::server::cli {

struct LoadOptions {
  enum class Mode { kRun, kNullServer, kCompare, kListScenarios };
  Mode mode = Mode::kRun;

  // kRun
  loadtest::Scenario scenario;  // valid
  std::string json_path;        // "-": standard output
  std::string html_path;
  bool progress = false;
  bool quiet = false;  // no table
  int64_t server_pid = 0;

  // kNullServer
  loadtest::NullServerOptions null_server;

  // kCompare
  std::vector<std::string> compare;  // two paths
  double max_regression = -1;        // share that may get worse; below 0: any
};

// `arguments`: those behind "load". A scenario is read first, then the flags override it. On
// success `options` is filled and nullopt comes back.
std::optional<CommandLineExit> ParseLoadArguments(const std::vector<std::string>& arguments,
                                                  LoadOptions& options);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_LOAD_OPTIONS_H_
