#include "server/tenants/api_key.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/status.h"

namespace reticle::server::tenants {
namespace {

constexpr std::string_view kKeyStart = "rtk_";
constexpr std::string_view kAlphabet =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr size_t kSecretBytes = 32;
constexpr size_t kMaxSecretBytes = 4096;

absl::StatusOr<std::string> RandomText(std::string_view prefix, size_t length) {
  std::string text(prefix);
  while (text.size() < prefix.size() + length) {
    std::array<unsigned char, 64> bytes;
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
      return UnavailableError("the system gives no random bytes");
    }
    for (const unsigned char byte : bytes) {
      // 248 is a multiple of 62: each letter is equally likely.
      if (byte >= 248 || text.size() == prefix.size() + length) continue;
      text.push_back(kAlphabet[byte % kAlphabet.size()]);
    }
  }
  return text;
}

class File {
 public:
  File(const std::string& path, int flags, mode_t mode)
      : descriptor_(open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }

 private:
  const int descriptor_;
};

// Another process may create the file at the same time; whoever links its own first wins.
absl::Status CreateSecret(const std::string& path) {
  std::array<unsigned char, kSecretBytes> secret;
  if (RAND_bytes(secret.data(), static_cast<int>(secret.size())) != 1) {
    return UnavailableError("the system gives no random bytes");
  }
  ASSIGN_OR_RETURN(const std::string temporary, RandomText(path + ".", 12));
  {
    const File file(temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (file.get() < 0 ||
        write(file.get(), secret.data(), secret.size()) != static_cast<ssize_t>(secret.size()) ||
        fsync(file.get()) != 0) {
      const int error = errno;
      unlink(temporary.c_str());
      return UnavailableError("cannot write the key secret %s: %s", path, std::strerror(error));
    }
  }
  const int linked = link(temporary.c_str(), path.c_str());
  const int error = errno;
  unlink(temporary.c_str());
  if (linked == 0 || error == EEXIST) return absl::OkStatus();
  return UnavailableError("cannot create the key secret %s: %s", path, std::strerror(error));
}

}  // namespace

bool KeyDigestEqual::operator()(const KeyDigest& a, const KeyDigest& b) const {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string DigestToHex(const KeyDigest& digest) {
  std::string hex;
  hex.reserve(2 * digest.size());
  for (const uint8_t byte : digest) {
    hex.push_back("0123456789abcdef"[byte >> 4]);
    hex.push_back("0123456789abcdef"[byte & 15]);
  }
  return hex;
}

absl::StatusOr<KeyDigest> DigestFromHex(std::string_view hex) {
  KeyDigest digest;
  if (hex.size() != 2 * digest.size()) {
    return InvalidArgumentError("a digest has %d hexadecimal digits, not %d", 2 * digest.size(),
                                hex.size());
  }
  for (size_t i = 0; i < hex.size(); ++i) {
    const char c = hex[i];
    const bool decimal = c >= '0' && c <= '9';
    if (!decimal && !(c >= 'a' && c <= 'f')) {
      return InvalidArgumentError("a digest holds a character that is no hexadecimal digit");
    }
    const int value = decimal ? c - '0' : c - 'a' + 10;
    digest[i / 2] = static_cast<uint8_t>(i % 2 == 0 ? value << 4 : digest[i / 2] | value);
  }
  return digest;
}

absl::StatusOr<std::string> NewApiKey() {
  return RandomText(kKeyStart, kKeyBytes - kKeyStart.size());
}

absl::StatusOr<std::string> NewRandomId(std::string_view prefix) { return RandomText(prefix, 24); }

bool LooksLikeApiKey(std::string_view text) {
  return text.size() == kKeyBytes && text.starts_with(kKeyStart) &&
         std::all_of(text.begin() + kKeyStart.size(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
         });
}

struct KeyHasher::Impl {
  // Initialised with the secret; each digest is made by a copy.
  EVP_MAC_CTX* keyed = nullptr;

  ~Impl() { EVP_MAC_CTX_free(keyed); }
};

KeyHasher::KeyHasher() : impl_(std::make_unique<Impl>()) {}
KeyHasher::~KeyHasher() = default;

absl::StatusOr<std::unique_ptr<KeyHasher>> KeyHasher::FromSecret(std::string_view secret) {
  if (secret.size() < kSecretBytes) {
    return InvalidArgumentError("the key secret has %d bytes; it must have at least %d",
                                secret.size(), kSecretBytes);
  }
  std::unique_ptr<KeyHasher> hasher(new KeyHasher);
  EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  if (mac == nullptr) return UnavailableError("OpenSSL offers no HMAC");
  hasher->impl_->keyed = EVP_MAC_CTX_new(mac);
  EVP_MAC_free(mac);
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  if (hasher->impl_->keyed == nullptr ||
      EVP_MAC_init(hasher->impl_->keyed, reinterpret_cast<const unsigned char*>(secret.data()),
                   secret.size(), params) != 1) {
    return UnavailableError("OpenSSL refuses HMAC-SHA256");
  }
  return hasher;
}

absl::StatusOr<std::unique_ptr<KeyHasher>> KeyHasher::Open(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) RETURN_IF_ERROR(CreateSecret(path));
  const File file(path, O_RDONLY, 0);
  struct stat info;
  if (file.get() < 0 || fstat(file.get(), &info) != 0) {
    return UnavailableError("cannot read the key secret %s: %s", path, std::strerror(errno));
  }
  if ((info.st_mode & 077) != 0) {
    return FailedPreconditionError("the key secret %s can be read by others; its mode must be 0600",
                                   path);
  }
  std::string secret(kMaxSecretBytes, '\0');
  const ssize_t size = read(file.get(), secret.data(), secret.size());
  if (size < 0) {
    return UnavailableError("cannot read the key secret %s: %s", path, std::strerror(errno));
  }
  secret.resize(static_cast<size_t>(size));
  absl::StatusOr<std::unique_ptr<KeyHasher>> hasher = FromSecret(secret);
  OPENSSL_cleanse(secret.data(), secret.size());
  return hasher;
}

KeyDigest KeyHasher::Digest(std::string_view key) const {
  KeyDigest digest;
  size_t size = 0;
  EVP_MAC_CTX* const mac = EVP_MAC_CTX_dup(impl_->keyed);
  RETICLE_CHECK(mac != nullptr);
  RETICLE_CHECK(
      EVP_MAC_update(mac, reinterpret_cast<const unsigned char*>(key.data()), key.size()) == 1);
  RETICLE_CHECK(EVP_MAC_final(mac, digest.data(), &size, digest.size()) == 1);
  EVP_MAC_CTX_free(mac);
  RETICLE_CHECK(size == digest.size());
  return digest;
}

}  // namespace reticle::server::tenants
