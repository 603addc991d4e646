// `reticle card`: an emulated card as a process of its own.
#ifndef RETICLE_SERVER_CLI_CARD_H_
#define RETICLE_SERVER_CLI_CARD_H_

#include <string>
#include <vector>

namespace reticle::server::cli {

// `arguments`: those behind "card". Serves hosts until SIGTERM or SIGINT and returns the exit
// status. Call it before any other thread exists.
int RunCard(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_CARD_H_
