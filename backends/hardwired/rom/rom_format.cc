#include "backends/hardwired/rom/rom_format.h"

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"

namespace reticle::backends::hardwired {

std::string_view RomEncodingName(RomEncoding encoding) {
  switch (encoding) {
    case RomEncoding::kFloat32:
      return "f32";
    case RomEncoding::kInt8:
      return "8-bit";
    case RomEncoding::kSixBit:
      return "6-bit";
    case RomEncoding::kThreeBit:
      return "3-bit";
  }
  return "unknown";
}

kernels::PackedFormat PackedFormatOf(RomEncoding encoding) {
  RETICLE_CHECK(encoding != RomEncoding::kFloat32);
  return encoding == RomEncoding::kInt8     ? kernels::PackedFormat::kImageInt8
         : encoding == RomEncoding::kSixBit ? kernels::PackedFormat::kSixBit
                                            : kernels::PackedFormat::kThreeBit;
}

std::vector<RomTensorShape> RomTensors(const models::LlamaConfig& config) {
  std::vector<RomTensorShape> tensors;
  const auto matrix = [&](const std::string& name, uint64_t rows, uint64_t columns) {
    tensors.push_back({name, true, rows, columns});
  };
  const auto vector = [&](const std::string& name, uint64_t length) {
    tensors.push_back({name, false, 1, length});
  };
  if (config.has_rope_factors) vector("rope_freqs.weight", config.head_dim / 2);
  matrix("token_embd.weight", config.vocab_size, config.dim);
  for (uint32_t i = 0; i < config.layers; ++i) {
    const std::string block = absl::StrFormat("blk.%d.", i);
    vector(block + "attn_norm.weight", config.dim);
    matrix(block + "attn_q.weight", config.q_dim(), config.dim);
    matrix(block + "attn_k.weight", config.kv_dim(), config.dim);
    matrix(block + "attn_v.weight", config.kv_dim(), config.dim);
    matrix(block + "attn_output.weight", config.dim, config.q_dim());
    vector(block + "ffn_norm.weight", config.dim);
    matrix(block + "ffn_gate.weight", config.ffn_dim, config.dim);
    matrix(block + "ffn_up.weight", config.ffn_dim, config.dim);
    matrix(block + "ffn_down.weight", config.dim, config.ffn_dim);
  }
  vector("output_norm.weight", config.dim);
  if (!config.tied_embeddings) matrix("output.weight", config.vocab_size, config.dim);
  return tensors;
}

uint64_t RomTensorBytes(const RomTensorShape& shape, RomEncoding encoding) {
  if (encoding == RomEncoding::kFloat32) return shape.rows * shape.columns * sizeof(float);
  return kernels::PackedBytes(PackedFormatOf(encoding), shape.rows, shape.columns);
}

absl::Status CheckRomShape(const models::LlamaConfig& config) {
  for (const RomTensorShape& tensor : RomTensors(config)) {
    if (tensor.is_matrix && tensor.columns % 32 != 0) {
      return InvalidArgumentError(
          "rows of tensor '%s' have %d weights; an image holds rows of whole groups of 32",
          tensor.name, tensor.columns);
    }
  }
  return absl::OkStatus();
}

models::LlamaConfig ConfigOf(const RomHeader& header) {
  models::LlamaConfig config;
  config.vocab_size = header.vocab_size;
  config.dim = header.dim;
  config.layers = header.layers;
  config.heads = header.heads;
  config.kv_heads = header.kv_heads;
  config.head_dim = header.head_dim;
  config.ffn_dim = header.ffn_dim;
  config.context_length = header.context_length;
  config.norm_epsilon = header.norm_epsilon;
  config.rope_base = header.rope_base;
  config.rope_linear_factor = header.rope_linear_factor;
  config.has_rope_factors = (header.flags & kRomRopeFactors) != 0;
  config.tied_embeddings = (header.flags & kRomTiedEmbeddings) != 0;
  return config;
}

void SetConfig(const models::LlamaConfig& config, RomHeader& header) {
  header.vocab_size = config.vocab_size;
  header.dim = config.dim;
  header.layers = config.layers;
  header.heads = config.heads;
  header.kv_heads = config.kv_heads;
  header.head_dim = config.head_dim;
  header.ffn_dim = config.ffn_dim;
  header.context_length = config.context_length;
  header.norm_epsilon = config.norm_epsilon;
  header.rope_base = config.rope_base;
  header.rope_linear_factor = config.rope_linear_factor;
  header.flags = (config.has_rope_factors ? kRomRopeFactors : 0) |
                 (config.tied_embeddings ? kRomTiedEmbeddings : 0);
}

}  // namespace reticle::backends::hardwired
