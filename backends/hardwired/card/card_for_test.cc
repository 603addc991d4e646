// A program that is nothing but a card process, for tests of the driver that start one: it takes
// the same arguments as `reticle card --fd N`.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "backends/hardwired/card/card_server.h"

int main(int argc, char** argv) {
  const std::string_view how = argc == 4 ? argv[2] : "";
  if (argc != 4 || std::string_view(argv[1]) != "card" || (how != "--fd" && how != "--socket")) {
    std::fprintf(stderr, "usage: %s card --fd N | --socket PATH\n", argv[0]);
    return 2;
  }
  reticle::backends::hardwired::CardServerOptions options;
  if (how == "--fd") {
    options.socket_fd = std::atoi(argv[3]);
  } else {
    options.socket_path = argv[3];
    options.config.synthetic = true;
    options.config.profile_name = "unlimited";
  }
  return reticle::backends::hardwired::RunCardServer(options).ok() ? 0 : 1;
}
