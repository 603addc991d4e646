#include "server/cli/card.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "backends/hardwired/card/card_server.h"
#include "backends/hardwired/card/fault.h"
#include "base/status.h"
#include "server/cli/command_line.h"

namespace reticle::server::cli {
namespace {

namespace hardwired = backends::hardwired;

std::string Signals() {
  std::string text = "Faults by signal (kill -s RTMIN+N PID):";
  for (uint32_t kind = 1; kind < hardwired::kFaultKinds; ++kind) {
    text += absl::StrFormat(
        " %u %s", kind, std::string(hardwired::FaultName(static_cast<hardwired::FaultKind>(kind))));
    text += kind + 1 < hardwired::kFaultKinds ? "," : ".";
  }
  return text + " SIGKILL and SIGSTOP are a crash and a hang, too.";
}

absl::Status Configure(const std::vector<std::pair<std::string, std::string>>& options,
                       hardwired::CardConfig* config) {
  for (const auto& [name, value] : options) {
    ASSIGN_OR_RETURN(const bool taken, config->Set(name, value));
    if (!taken) return InvalidArgumentError("--option %s is not known to a card", name);
  }
  return absl::OkStatus();
}

}  // namespace

int RunCard(const std::vector<std::string>& arguments) {
  CLI::App app("An emulated card as a process of its own; a server drives it over shared memory",
               "reticle card");
  app.footer(Signals());
  hardwired::CardServerOptions options;
  std::string profile = options.config.profile_name;
  std::string content = "functional";
  std::string clock = "wall";
  std::string image;
  std::string name;
  std::vector<std::string> further;
  app.add_option("--profile", profile, "Device profile: a name, or the path of a TOML file")
      ->capture_default_str();
  app.add_option("--image", image, "Device image (reticle tapeout makes one)");
  app.add_option("--content", content, "functional (the image's tokens) or replay")
      ->capture_default_str();
  app.add_option("--clock", clock, "wall or virtual")->capture_default_str();
  app.add_option("--socket", options.socket_path,
                 "Socket to wait at; the server gets card=socket and card_socket");
  app.add_option("--name", name, "Short for --socket /tmp/reticle-card-NAME.sock");
  app.add_option("--option", further, "NAME=VALUE: another option of the device; may be repeated");
  app.add_option("--fd", options.socket_fd,
                 "A connected socket: what a server uses that starts "
                 "its cards itself");
  if (const auto exit = ParseArguments(app, arguments); exit.has_value()) return Finish(*exit);
  if (!name.empty() && options.socket_path.empty()) {
    options.socket_path = "/tmp/reticle-card-" + name + ".sock";
  }
  if (options.socket_fd < 0 && options.socket_path.empty()) {
    std::fputs("reticle card: needs --socket PATH or --name NAME\n", stderr);
    return 2;
  }
  std::vector<std::pair<std::string, std::string>> card_options = {
      {"profile", profile}, {"content", content}, {"clock", clock}};
  if (!image.empty()) card_options.emplace_back("image", image);
  for (const std::string& option : further) {
    const size_t equals = option.find('=');
    if (equals == std::string::npos) {
      std::fprintf(stderr, "reticle card: --option %s has no '='\n", option.c_str());
      return 2;
    }
    card_options.emplace_back(option.substr(0, equals), option.substr(equals + 1));
  }
  absl::Status status = Configure(card_options, &options.config);
  if (status.ok()) status = hardwired::RunCardServer(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reticle card: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace reticle::server::cli
