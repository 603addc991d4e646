// `reticle load`: the load generator and the null server on the command line.
#ifndef RETICLE_SERVER_CLI_LOAD_H_
#define RETICLE_SERVER_CLI_LOAD_H_

#include <string>
#include <vector>

namespace reticle::server::cli {

// Exit statuses of `reticle load`.
enum LoadExit {
  kLoadOk = 0,         // every SLO met, or none was set
  kLoadMissed = 1,     // an SLO missed; no request succeeded; --compare found a regression
  kLoadUsage = 2,      // command line, scenario, trace or data set is wrong
  kLoadNoServer = 3,   // nothing answers
  kLoadNoVerdict = 4,  // an SLO missed while the client was the bottleneck
};

// `arguments`: those behind "load". Runs what they say and returns the exit status. `version` goes
// into reports. Call it before any other thread exists: it handles SIGINT and SIGTERM.
int RunLoad(const std::vector<std::string>& arguments, const std::string& version);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_LOAD_H_
