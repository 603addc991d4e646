#include "server/metrics/certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <memory>

#include "base/status.h"

namespace reticle::server {

absl::StatusOr<int64_t> CertificateExpiry(const std::string& path) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> file(BIO_new_file(path.c_str(), "r"), &BIO_free);
  if (file == nullptr) {
    ERR_clear_error();
    return NotFoundError("certificate %s cannot be read", path);
  }
  int64_t earliest = std::numeric_limits<int64_t>::max();
  for (;;) {
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr), &X509_free);
    if (certificate == nullptr) break;
    std::tm end{};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) == 1) {
      earliest = std::min<int64_t>(earliest, timegm(&end));
    }
  }
  ERR_clear_error();
  if (earliest == std::numeric_limits<int64_t>::max()) {
    return InvalidArgumentError("%s holds no certificate", path);
  }
  return earliest;
}

}  // namespace reticle::server
