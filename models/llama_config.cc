#include "models/llama_config.h"

#include <cmath>
#include <initializer_list>
#include <limits>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "models/gguf_cursor.h"

namespace reticle::models {
namespace {

constexpr uint32_t kMaxVocab = 1u << 22;
constexpr uint32_t kMaxDim = 1u << 17;
constexpr uint32_t kMaxLayers = 1024;
constexpr uint32_t kMaxHeads = 4096;
constexpr uint32_t kMaxHeadDim = 1024;
constexpr uint32_t kMaxFfnDim = 1u << 20;
constexpr uint32_t kMaxContext = 1u << 26;
constexpr float kMaxNormEpsilon = 0.1f;
constexpr double kMaxRopeBase = 1e15;
constexpr double kMaxLinearFactor = 1e4;
constexpr double kDefaultRopeBase = 10000.0;

absl::Status CheckRange(std::string_view field, uint32_t value, uint32_t low, uint32_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgumentError("%s is %d; it must be %d to %d", field, value, low, high);
}

// NaN fails too.
absl::Status CheckRange(std::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgumentError("%s is %g; it must be %g to %g", field, value, low, high);
}

absl::StatusOr<uint32_t> ReadUint32(const GgufFile& file, std::string_view key) {
  ASSIGN_OR_RETURN(const uint64_t value, file.GetUint(key));
  if (value > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgumentError("metadata '%s' is %d; the limit is %d", key, value,
                                std::numeric_limits<uint32_t>::max());
  }
  return static_cast<uint32_t>(value);
}

absl::StatusOr<uint32_t> ReadUint32Or(const GgufFile& file, std::string_view key,
                                      uint32_t fallback) {
  if (!file.Has(key)) return fallback;
  return ReadUint32(file, key);
}

absl::StatusOr<double> ReadFloatOr(const GgufFile& file, std::string_view key, double fallback) {
  if (!file.Has(key)) return fallback;
  return file.GetFloat(key);
}

absl::Status CheckAbsentOrEqual(const GgufFile& file, std::string_view key, uint32_t wanted,
                                std::string_view why) {
  ASSIGN_OR_RETURN(const uint32_t value, ReadUint32Or(file, key, wanted));
  if (value == wanted) return absl::OkStatus();
  return UnimplementedError("metadata '%s' is %d; only %d is computed (%s)", key, value, wanted,
                            why);
}

absl::Status ReadRope(const GgufFile& file, LlamaConfig& config) {
  ASSIGN_OR_RETURN(config.rope_base, ReadFloatOr(file, "llama.rope.freq_base", kDefaultRopeBase));
  RETURN_IF_ERROR(CheckAbsentOrEqual(file, "llama.rope.dimension_count", config.head_dim,
                                     "all dimensions of a head are rotated"));
  config.has_rope_factors = file.FindTensor("rope_freqs.weight") != nullptr;

  std::string_view scaling = "linear";
  if (file.Has("llama.rope.scaling.type")) {
    ASSIGN_OR_RETURN(scaling, file.GetString("llama.rope.scaling.type"));
  }
  if (scaling == "linear") {
    // llama.rope.scale_linear is the name that older files use.
    ASSIGN_OR_RETURN(const double older, ReadFloatOr(file, "llama.rope.scale_linear", 1.0));
    ASSIGN_OR_RETURN(config.rope_linear_factor,
                     ReadFloatOr(file, "llama.rope.scaling.factor", older));
    return absl::OkStatus();
  }
  if (scaling == "none") return absl::OkStatus();
  if (scaling == "llama3") {
    if (config.has_rope_factors) return absl::OkStatus();
    return NotFoundError(
        "metadata 'llama.rope.scaling.type' is 'llama3', but tensor "
        "'rope_freqs.weight', which carries the factors, is missing");
  }
  return UnimplementedError(
      "metadata 'llama.rope.scaling.type' is '%s'; none, linear and llama3 "
      "are computed",
      QuoteForMessage(scaling));
}

absl::Status ReadVocabulary(const GgufFile& file, LlamaConfig& config) {
  const GgufTensor* embeddings = file.FindTensor("token_embd.weight");
  if (embeddings == nullptr) return NotFoundError("tensor 'token_embd.weight' is missing");
  if (embeddings->shape.size() != 2 || embeddings->shape[1] > kMaxVocab) {
    return InvalidArgumentError(
        "tensor 'token_embd.weight' has %d dimensions and %d rows; it must "
        "have 2 and at most %d",
        embeddings->shape.size(), embeddings->rows(), kMaxVocab);
  }
  config.vocab_size = static_cast<uint32_t>(embeddings->shape[1]);
  ASSIGN_OR_RETURN(const uint32_t declared,
                   ReadUint32Or(file, "llama.vocab_size", config.vocab_size));
  if (declared != config.vocab_size) {
    return InvalidArgumentError("metadata 'llama.vocab_size' is %d; token_embd.weight has %d rows",
                                declared, config.vocab_size);
  }
  if (file.Has("tokenizer.ggml.tokens")) {
    ASSIGN_OR_RETURN(const GgufValue tokens, file.Get("tokenizer.ggml.tokens"));
    if (tokens.size() != config.vocab_size) {
      return InvalidArgumentError(
          "metadata 'tokenizer.ggml.tokens' has %d entries; "
          "token_embd.weight has %d rows",
          tokens.size(), config.vocab_size);
    }
  }
  return absl::OkStatus();
}

// Refuses what changes the computation and has no place in it.
absl::Status CheckNothingElseIsAsked(const GgufFile& file, const LlamaConfig& config) {
  RETURN_IF_ERROR(CheckAbsentOrEqual(file, "llama.expert_count", 0, "no mixture of experts"));
  RETURN_IF_ERROR(CheckAbsentOrEqual(file, "llama.attention.value_length", config.head_dim,
                                     "keys and values of a head are equally long"));
  ASSIGN_OR_RETURN(const uint32_t window, ReadUint32Or(file, "llama.attention.sliding_window", 0));
  if (window != 0 && window < config.context_length) {
    return UnimplementedError(
        "metadata 'llama.attention.sliding_window' is %d, less than the "
        "context of %d; sliding windows are not computed",
        window, config.context_length);
  }
  if (file.Has("llama.attention.causal")) {
    ASSIGN_OR_RETURN(const bool causal, file.GetBool("llama.attention.causal"));
    if (!causal) {
      return UnimplementedError(
          "metadata 'llama.attention.causal' is false; only causal attention "
          "is computed");
    }
  }
  for (const std::string_view key :
       {"llama.attention.max_alibi_bias", "llama.attention.clamp_kqv",
        "llama.attn_logit_softcapping", "llama.final_logit_softcapping"}) {
    ASSIGN_OR_RETURN(const double value, ReadFloatOr(file, key, 0.0));
    if (value != 0.0)
      return UnimplementedError("metadata '%s' is %g; only 0 is computed", key, value);
  }
  for (const std::string_view key :
       {"llama.logit_scale", "llama.residual_scale", "llama.embedding_scale"}) {
    ASSIGN_OR_RETURN(const double value, ReadFloatOr(file, key, 1.0));
    if (value != 1.0)
      return UnimplementedError("metadata '%s' is %g; only 1 is computed", key, value);
  }
  return absl::OkStatus();
}

// Looks tensors up, checks them and remembers which were used.
class Binder {
 public:
  explicit Binder(const GgufFile& file) : file_(file) {}

  absl::StatusOr<const GgufTensor*> Matrix(const std::string& name, uint64_t in, uint64_t out) {
    return Find(name, {in, out});
  }

  absl::StatusOr<const GgufTensor*> Vector(const std::string& name, uint64_t length) {
    ASSIGN_OR_RETURN(const GgufTensor* tensor, Find(name, {length}));
    if (tensor->type != TensorType::kF32) {
      return UnimplementedError("tensor '%s' is of type %s; only F32 is read there", name,
                                TensorTypeName(tensor->type));
    }
    return tensor;
  }

  // Older converters wrote the rotary frequencies, which follow from the metadata, for each layer.
  void Ignore(const std::string& name) {
    if (const GgufTensor* tensor = file_.FindTensor(name); tensor != nullptr) used_.insert(tensor);
  }

  absl::Status CheckAllUsed() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!used_.contains(&tensor)) {
        return UnimplementedError("tensor '%s' has no place in the Llama computation",
                                  QuoteForMessage(tensor.name));
      }
    }
    return absl::OkStatus();
  }

 private:
  static std::string ShapeText(std::span<const uint64_t> shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
      if (i > 0) text += ", ";
      text += std::to_string(shape[i]);
    }
    return text + "]";
  }

  absl::StatusOr<const GgufTensor*> Find(const std::string& name,
                                         std::initializer_list<uint64_t> shape) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) return NotFoundError("tensor '%s' is missing", name);
    if (!std::equal(tensor->shape.begin(), tensor->shape.end(), shape.begin(), shape.end())) {
      return InvalidArgumentError("tensor '%s' has shape %s; the metadata ask for %s", name,
                                  ShapeText(tensor->shape),
                                  ShapeText(std::span(shape.begin(), shape.size())));
    }
    used_.insert(tensor);
    return tensor;
  }

  const GgufFile& file_;
  std::set<const GgufTensor*> used_;
};

}  // namespace

uint64_t LlamaConfig::parameters() const {
  const uint64_t layer = uint64_t{dim} * (2 * uint64_t{q_dim()} + 2 * uint64_t{kv_dim()}) +
                         3 * uint64_t{dim} * ffn_dim + 2 * uint64_t{dim};
  return uint64_t{vocab_size} * dim * (tied_embeddings ? 1 : 2) + layers * layer + dim;
}

absl::Status LlamaConfig::Validate() const {
  RETURN_IF_ERROR(CheckRange("vocab_size", vocab_size, 1, kMaxVocab));
  RETURN_IF_ERROR(CheckRange("dim (llama.embedding_length)", dim, 1, kMaxDim));
  RETURN_IF_ERROR(CheckRange("layers (llama.block_count)", layers, 1, kMaxLayers));
  RETURN_IF_ERROR(CheckRange("heads (llama.attention.head_count)", heads, 1, kMaxHeads));
  RETURN_IF_ERROR(CheckRange("kv_heads (llama.attention.head_count_kv)", kv_heads, 1, heads));
  if (heads % kv_heads != 0) {
    return InvalidArgumentError(
        "heads (llama.attention.head_count) is %d; it must be a multiple "
        "of kv_heads (llama.attention.head_count_kv), %d",
        heads, kv_heads);
  }
  RETURN_IF_ERROR(CheckRange("head_dim (llama.attention.key_length)", head_dim, 2, kMaxHeadDim));
  if (head_dim % 2 != 0) {
    return InvalidArgumentError("head_dim (llama.attention.key_length) is %d; it must be even",
                                head_dim);
  }
  RETURN_IF_ERROR(CheckRange("ffn_dim (llama.feed_forward_length)", ffn_dim, 1, kMaxFfnDim));
  RETURN_IF_ERROR(
      CheckRange("context_length (llama.context_length)", context_length, 1, kMaxContext));
  RETURN_IF_ERROR(CheckRange("norm_epsilon (llama.attention.layer_norm_rms_epsilon)", norm_epsilon,
                             0.0, kMaxNormEpsilon));
  RETURN_IF_ERROR(CheckRange("rope_base (llama.rope.freq_base)", rope_base, 1.0, kMaxRopeBase));
  return CheckRange("rope_linear_factor (llama.rope.scaling.factor)", rope_linear_factor,
                    1.0 / kMaxLinearFactor, kMaxLinearFactor);
}

absl::StatusOr<LlamaConfig> ReadLlamaConfig(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string_view architecture, file.GetString("general.architecture"));
  if (architecture != "llama") {
    return UnimplementedError("metadata 'general.architecture' is '%s'; only 'llama' is computed",
                              QuoteForMessage(architecture));
  }
  LlamaConfig config;
  if (file.Has("general.name")) {
    ASSIGN_OR_RETURN(config.name, file.GetString("general.name"));
  }
  RETURN_IF_ERROR(ReadVocabulary(file, config));
  ASSIGN_OR_RETURN(config.dim, ReadUint32(file, "llama.embedding_length"));
  ASSIGN_OR_RETURN(config.layers, ReadUint32(file, "llama.block_count"));
  ASSIGN_OR_RETURN(config.heads, ReadUint32(file, "llama.attention.head_count"));
  ASSIGN_OR_RETURN(config.kv_heads,
                   ReadUint32Or(file, "llama.attention.head_count_kv", config.heads));
  ASSIGN_OR_RETURN(config.ffn_dim, ReadUint32(file, "llama.feed_forward_length"));
  ASSIGN_OR_RETURN(config.context_length, ReadUint32(file, "llama.context_length"));
  ASSIGN_OR_RETURN(const double epsilon, file.GetFloat("llama.attention.layer_norm_rms_epsilon"));
  config.norm_epsilon = static_cast<float>(epsilon);
  config.tied_embeddings = file.FindTensor("output.weight") == nullptr;

  constexpr std::string_view kKeyLength = "llama.attention.key_length";
  if (file.Has(kKeyLength)) {
    ASSIGN_OR_RETURN(config.head_dim, ReadUint32(file, kKeyLength));
  } else {
    if (config.heads == 0 || config.dim % config.heads != 0) {
      return InvalidArgumentError(
          "metadata 'llama.embedding_length' is %d, no multiple of "
          "'llama.attention.head_count', %d, and '%s' is missing",
          config.dim, config.heads, kKeyLength);
    }
    config.head_dim = config.dim / config.heads;
  }
  RETURN_IF_ERROR(ReadRope(file, config));
  RETURN_IF_ERROR(config.Validate());
  RETURN_IF_ERROR(CheckNothingElseIsAsked(file, config));
  return config;
}

absl::StatusOr<LlamaWeights> BindLlamaWeights(const GgufFile& file, const LlamaConfig& config) {
  RETURN_IF_ERROR(config.Validate());
  Binder binder(file);
  LlamaWeights weights = {};
  ASSIGN_OR_RETURN(weights.token_embd,
                   binder.Matrix("token_embd.weight", config.dim, config.vocab_size));
  ASSIGN_OR_RETURN(weights.output_norm, binder.Vector("output_norm.weight", config.dim));
  weights.output = weights.token_embd;
  if (!config.tied_embeddings) {
    ASSIGN_OR_RETURN(weights.output, binder.Matrix("output.weight", config.dim, config.vocab_size));
  }
  if (config.has_rope_factors) {
    ASSIGN_OR_RETURN(weights.rope_freqs, binder.Vector("rope_freqs.weight", config.head_dim / 2));
  }
  weights.layers.reserve(config.layers);
  for (uint32_t i = 0; i < config.layers; ++i) {
    const std::string block = absl::StrFormat("blk.%d.", i);
    LlamaLayerWeights layer = {};
    ASSIGN_OR_RETURN(layer.attn_norm, binder.Vector(block + "attn_norm.weight", config.dim));
    ASSIGN_OR_RETURN(layer.attn_q,
                     binder.Matrix(block + "attn_q.weight", config.dim, config.q_dim()));
    ASSIGN_OR_RETURN(layer.attn_k,
                     binder.Matrix(block + "attn_k.weight", config.dim, config.kv_dim()));
    ASSIGN_OR_RETURN(layer.attn_v,
                     binder.Matrix(block + "attn_v.weight", config.dim, config.kv_dim()));
    ASSIGN_OR_RETURN(layer.attn_output,
                     binder.Matrix(block + "attn_output.weight", config.q_dim(), config.dim));
    ASSIGN_OR_RETURN(layer.ffn_norm, binder.Vector(block + "ffn_norm.weight", config.dim));
    ASSIGN_OR_RETURN(layer.ffn_gate,
                     binder.Matrix(block + "ffn_gate.weight", config.dim, config.ffn_dim));
    ASSIGN_OR_RETURN(layer.ffn_up,
                     binder.Matrix(block + "ffn_up.weight", config.dim, config.ffn_dim));
    ASSIGN_OR_RETURN(layer.ffn_down,
                     binder.Matrix(block + "ffn_down.weight", config.ffn_dim, config.dim));
    binder.Ignore(block + "attn_rot_embd.weight");
    weights.layers.push_back(layer);
  }
  RETURN_IF_ERROR(binder.CheckAllUsed());
  return weights;
}

std::span<const float> AsFloats(const GgufTensor& tensor) {
  RETICLE_CHECK(tensor.type == TensorType::kF32);
  return {reinterpret_cast<const float*>(tensor.data.data()), tensor.data.size() / sizeof(float)};
}

}  // namespace reticle::models
