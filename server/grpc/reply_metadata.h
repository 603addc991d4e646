// What calls tell beside their messages, in metadata: the caller's limits, the service tier, and
// when to come back. The names are those of the HTTP API's headers.
#ifndef RETICLE_SERVER_GRPC_REPLY_METADATA_H_
#define RETICLE_SERVER_GRPC_REPLY_METADATA_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/core/gate.h"
#include "server/core/server_context.h"

namespace reticle::server {

// Adds the caller's limits and what is left of them to the initial metadata. Before the call's
// first message; `caller` may be null.
void AddLimits(ServerContext& server, const Caller* caller, grpc::CallbackServerContext& call);

// The status with which the call ends. When it says that coming back is worth it, the time goes
// into the trailing metadata (retry-after, retry-after-ms) and, as google.rpc.RetryInfo, into the
// status' details.
grpc::Status EndOfCall(const absl::Status& status, grpc::CallbackServerContext& call);

// A serialised google.rpc.Status with one google.rpc.RetryInfo.
std::string RetryDetails(int grpc_code, std::string_view message, int64_t retry_after_ms);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_REPLY_METADATA_H_
