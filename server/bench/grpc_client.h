// One gRPC stream, for `reticle bench serve`.
#ifndef RETICLE_SERVER_BENCH_GRPC_CLIENT_H_
#define RETICLE_SERVER_BENCH_GRPC_CLIENT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace reticle::server::bench {

struct GrpcStreamSeen {
  uint64_t tokens = 0;
  uint64_t messages = 0;
  int64_t first_ns = 0;
  int64_t last_ns = 0;
};

// Streams `max_tokens` tokens from 127.0.0.1:`port` and counts them.
absl::StatusOr<GrpcStreamSeen> ReadGrpcStream(uint16_t port, const std::string& prompt,
                                              uint32_t max_tokens);

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_GRPC_CLIENT_H_
