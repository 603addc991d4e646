// `reticle drain`: asks a running server to drain and waits until load balancers have noticed, or
// until it is gone. Made for preStop hooks.
#ifndef RETICLE_SERVER_CLI_DRAIN_H_
#define RETICLE_SERVER_CLI_DRAIN_H_

#include <string>
#include <vector>

namespace reticle::server::cli {

// Exit status: 0 as asked, 1 nobody answers or it took too long, 2 wrong usage.
int RunDrain(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_DRAIN_H_
