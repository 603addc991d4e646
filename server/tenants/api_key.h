// API keys: how they are made, recognised and remembered.
//
// A key is "rtk_" and forty letters and digits (238 random bits). The store keeps its digest, an
// HMAC-SHA256 under a secret of this server's own, so that a stolen store alone lets nobody in and
// nobody can look for known keys in it. Operators see the first twelve characters.
#ifndef RETICLE_SERVER_TENANTS_API_KEY_H_
#define RETICLE_SERVER_TENANTS_API_KEY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::server::tenants {

inline constexpr size_t kKeyBytes = 44;
inline constexpr size_t kKeyPrefixBytes = 12;

using KeyDigest = std::array<uint8_t, 32>;

// Equality in a time that does not depend on where the two differ.
struct KeyDigestEqual {
  bool operator()(const KeyDigest& a, const KeyDigest& b) const;
};
std::string DigestToHex(const KeyDigest& digest);
// INVALID_ARGUMENT unless it is 64 hexadecimal digits.
absl::StatusOr<KeyDigest> DigestFromHex(std::string_view hex);

// A new key from the system's random generator; UNAVAILABLE when that has failed.
absl::StatusOr<std::string> NewApiKey();
// `prefix` and 24 random letters and digits, for ids and claims.
absl::StatusOr<std::string> NewRandomId(std::string_view prefix);
// Whether `text` has the form of a key; says nothing about whether it is one.
bool LooksLikeApiKey(std::string_view text);

// Thread-safe.
class KeyHasher {
 public:
  // Reads the secret of 32 bytes or more from `path`; creates the file with mode 0600 when there is
  // none. FAILED_PRECONDITION when others may read the file.
  static absl::StatusOr<std::unique_ptr<KeyHasher>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<KeyHasher>> FromSecret(std::string_view secret);
  ~KeyHasher();
  KeyHasher(const KeyHasher&) = delete;
  KeyHasher& operator=(const KeyHasher&) = delete;

  KeyDigest Digest(std::string_view key) const;

 private:
  KeyHasher();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_API_KEY_H_
