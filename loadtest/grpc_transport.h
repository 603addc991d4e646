// Requests over Reticle's gRPC API.
#ifndef RETICLE_LOADTEST_GRPC_TRANSPORT_H_
#define RETICLE_LOADTEST_GRPC_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "loadtest/endpoint.h"
#include "loadtest/transport.h"

namespace reticle::loadtest {

struct GrpcTransportOptions {
  Endpoint endpoint;
  std::string model;
  std::string api_key;  // sent as `authorization` metadata; empty: none
  double temperature = 0;
  bool ignore_eos = true;
  int64_t connections = 1;  // HTTP/2 connections that the calls are spread over; at least 1
  int64_t timeout_ns = 0;
};

// See Transport. Calls share the connections of one completion queue. An event is a message: tokens
// that were ready together come in one, and are counted one by one in Outcome::tokens_seen.
// `recorder` must outlive the transport.
std::unique_ptr<Transport> MakeGrpcTransport(const GrpcTransportOptions& options,
                                             Recorder& recorder, Transport::OnDone on_done);

// The first model that the server lists. UNAVAILABLE when it cannot be reached in `timeout_ns`.
absl::StatusOr<std::string> FirstGrpcModel(const Endpoint& endpoint, int64_t timeout_ns);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_GRPC_TRANSPORT_H_
