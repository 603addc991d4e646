// `reticle compare`: one workload on several device profiles, simulated.
#ifndef RETICLE_SERVER_CLI_COMPARE_H_
#define RETICLE_SERVER_CLI_COMPARE_H_

#include <string>
#include <vector>

namespace reticle::server::cli {

// `arguments`: those behind "compare". Prints, writes the files that were asked for, and returns
// the exit status.
int Compare(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_COMPARE_H_
