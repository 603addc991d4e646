// When a TLS certificate chain ends.
#ifndef RETICLE_SERVER_METRICS_CERTIFICATE_H_
#define RETICLE_SERVER_METRICS_CERTIFICATE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace reticle::server {

// The earliest end of validity of the certificates in a PEM file, seconds since the Unix epoch.
// NOT_FOUND when it cannot be read, INVALID_ARGUMENT when it holds none.
absl::StatusOr<int64_t> CertificateExpiry(const std::string& path);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_CERTIFICATE_H_
