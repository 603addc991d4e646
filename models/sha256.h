// SHA-256 in pieces.
#ifndef RETICLE_MODELS_SHA256_H_
#define RETICLE_MODELS_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace reticle::models {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Add(std::span<const std::byte> bytes);
  // Once, and nothing after it.
  Sha256Digest Finish();

 private:
  void* context_;
};

// 64 lower-case digits.
std::string HexOf(const Sha256Digest& digest);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_SHA256_H_
