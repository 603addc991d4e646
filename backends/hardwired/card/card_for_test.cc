// A program that is nothing but a card process, for tests of the driver that start one: it takes the
// same arguments as `reticle card --fd N`.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "backends/hardwired/card/card_server.h"

int main(int argc, char** argv) {
  if (argc != 4 || std::string_view(argv[1]) != "card" || std::string_view(argv[2]) != "--fd") {
    std::fprintf(stderr, "usage: %s card --fd N\n", argv[0]);
    return 2;
  }
  reticle::backends::hardwired::CardServerOptions options;
  options.socket_fd = std::atoi(argv[3]);
  return reticle::backends::hardwired::RunCardServer(options).ok() ? 0 : 1;
}
