#include "server/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <sstream>

namespace reticle::server::cli {

CommandLineExit Mistake(const CLI::App& app, const absl::Status& status) {
  return {.status = 2, .output = app.get_name() + ": " + std::string(status.message()) + "\n"};
}

std::optional<CommandLineExit> ParseArguments(CLI::App& app,
                                              const std::vector<std::string>& arguments) {
  try {
    // CLI11 takes them from the end.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    if (app.exit(error, text, text) == 0) return CommandLineExit{.output = text.str()};
    return CommandLineExit{.status = 2, .output = app.get_name() + ": " + text.str()};
  }
  return std::nullopt;
}

int Finish(const CommandLineExit& exit) {
  std::fputs(exit.output.c_str(), exit.status == 0 ? stdout : stderr);
  return exit.status;
}

}  // namespace reticle::server::cli
