// Parsing of command lines, alike for every subcommand.
#ifndef RETICLE_SERVER_CLI_COMMAND_LINE_H_
#define RETICLE_SERVER_CLI_COMMAND_LINE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace reticle::server::cli {

// Why the program ends with the parsing of its command line, by --help or by a mistake: the exit
// status and what to print, to standard output for status 0 and else to standard error.
struct CommandLineExit {
  int status = 0;
  std::string output;
};

// A mistake: status 2, "APP: MESSAGE". `app` has the name of program and subcommand.
CommandLineExit Mistake(const CLI::App& app, const absl::Status& status);

// Parses `arguments`, in their order, with `app`; nullopt when the program goes on.
std::optional<CommandLineExit> ParseArguments(CLI::App& app,
                                              const std::vector<std::string>& arguments);

// Prints what is to be said and returns the exit status.
int Finish(const CommandLineExit& exit);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_COMMAND_LINE_H_
