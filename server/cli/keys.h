// `reticle keys`: administers accounts and keys, on the store itself (a server may run on it at the
// same time) or through the admin listener of a running server, with the same output.
#ifndef RETICLE_SERVER_CLI_KEYS_H_
#define RETICLE_SERVER_CLI_KEYS_H_

#include <string>
#include <vector>

namespace reticle::server::cli {

// `arguments`: those behind "keys". Returns the exit status.
int RunKeys(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_KEYS_H_
