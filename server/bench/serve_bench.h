// `reticle bench serve`: what the server itself costs, measured from outside.
//
// Each scenario starts a server of its own over a device that costs nothing, or keeps a given pace,
// and a client that costs little in this process; server and client have a core each where there
// are two. Where it is asked for, the null server of `reticle load` writes the same bytes for the
// same client in the same run.
#ifndef RETICLE_SERVER_BENCH_SERVE_BENCH_H_
#define RETICLE_SERVER_BENCH_SERVE_BENCH_H_

#include <string>
#include <vector>

namespace reticle::server::bench {

// `arguments`: those behind "bench". Returns the exit status: 0 unless something could not be
// measured; figures that miss their goal do not change it.
int RunBench(const std::vector<std::string>& arguments);

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_SERVE_BENCH_H_
