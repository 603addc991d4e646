#include "models/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/str_format.h"
#include "base/check.h"

namespace reticle::models {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  RETICLE_CHECK(context_ != nullptr);
  RETICLE_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Add(std::span<const std::byte> bytes) {
  RETICLE_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) ==
                1);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  unsigned int size = 0;
  RETICLE_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size) == 1);
  RETICLE_CHECK(size == digest.size());
  return digest;
}

std::string HexOf(const Sha256Digest& digest) {
  std::string hex;
  for (const uint8_t byte : digest) hex += absl::StrFormat("%02x", byte);
  return hex;
}

}  // namespace reticle::models
