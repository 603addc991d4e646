// From a GGUF model to a device image, and how good the image is.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_TAPEOUT_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_TAPEOUT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/hardwired/rom/rom_format.h"
#include "models/gguf.h"

namespace reticle::backends::hardwired {

// A text as tokens. What is measured is the prediction of the tokens that count; a token that does
// not is context.
struct TokenText {
  std::vector<uint32_t> tokens;
  std::vector<bool> counts;  // as long as tokens
};

struct TapeoutOptions {
  enum class Types { k8, k6, k3, k3And6 };
  Types types = Types::k3And6;
  // With k3And6: bits a weight that the matrices may take on average, scales included.
  double bits_per_weight = 4.0;
  // Inputs of the matrices are gathered here. Not needed for 8 bits.
  std::vector<TokenText> calibration = {};
  // Where source and image are compared; empty: they are not.
  std::vector<TokenText> held_out = {};
  int threads = 1;
  // Told what is being done and which share of it is done, from time to time.
  std::function<void(std::string_view stage, double share)> progress = {};
};

// "8", "6", "3" or "3/6". INVALID_ARGUMENT for other texts.
absl::StatusOr<TapeoutOptions::Types> ParseTypes(std::string_view text);
std::string_view TypesName(TapeoutOptions::Types types);

struct TapeoutReport {
  struct Tensor {
    std::string name;
    RomEncoding encoding = RomEncoding::kFloat32;
    uint64_t weights = 0;
    uint64_t bytes = 0;
    double bits_per_weight = 0.0;
    // Nats by which the model's predictions change when this tensor alone is of 3 or 6 bits (KL
    // divergence from the source on calibration text). Negative: not measured.
    double kl_at_3 = -1.0;
    double kl_at_6 = -1.0;
  };
  // On held-out text.
  struct Quality {
    uint64_t tokens = 0;
    double source_perplexity = 0.0;
    double image_perplexity = 0.0;
    double kl_divergence = 0.0;   // mean of KL(source || image), nats a token
    double same_top_token = 0.0;  // share of positions
  };

  models::LlamaConfig config;
  std::string types;
  std::string source_hash;
  std::string image_hash;
  uint64_t source_bytes = 0;
  uint64_t image_bytes = 0;
  uint64_t weight_bytes = 0;
  double bits_per_weight = 0.0;
  uint64_t calibration_tokens = 0;
  uint64_t sensitivity_tokens = 0;
  std::vector<Tensor> tensors;
  Quality quality;
  // KV memory of a token, with 16 and with 8 bits.
  uint64_t kv_bytes_per_token_f16 = 0;
  uint64_t kv_bytes_per_token_int8 = 0;  // 0: heads do not allow it
};

// Writes the image of `source` to `path`. The bytes depend on source, types, bits and calibration
// only (the kernels of all instruction sets with fused multiply-add calibrate alike). Memory: the
// source's weights packed once, one matrix of the image, and statistics of 1 KiB for each column.
// INVALID_ARGUMENT for what the source or a text holds; UNIMPLEMENTED for models that the kernels
// do not compute.
absl::StatusOr<TapeoutReport> TapeOut(const models::GgufFile& source, const std::string& path,
                                      const TapeoutOptions& options);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_TAPEOUT_H_
