// The line of the log that each request leaves.
#ifndef RETICLE_SERVER_TELEMETRY_REQUEST_LOG_H_
#define RETICLE_SERVER_TELEMETRY_REQUEST_LOG_H_

#include <string>
#include <string_view>

#include "server/core/request_summary.h"

namespace reticle::server {

// Writes it: requests for a generation at the level info, the server's own faults at warning,
// orders to the admin listener at info, everything else at debug. docs/lifecycle.md lists the keys.
void LogRequest(const RequestSummary& summary);

// "stop", "length", "abort", "deadline", "error"; "refused" for what was not admitted, "abandoned"
// when its client left before.
std::string_view FinishName(const RequestSummary& summary);

// Stands for an organisation in logs: 16 hexadecimal digits, the same in every process.
std::string TenantHash(std::string_view organisation);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_TELEMETRY_REQUEST_LOG_H_
