#include "models/named_shapes.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/status.h"
#include "models/rope.h"

namespace reticle::models {
namespace {

// Rows that are made anew for a matrix; the others repeat them. Speed does not depend on values.
constexpr uint32_t kDistinctRows = 16;
constexpr double kSmallModelFactor = 32.0;

constexpr std::array kShapes = {
    NamedShape{"llama-3.1-8b", "Llama 3.1 8B: 32 layers of 4096, vocabulary 128,256"},
    NamedShape{"llama-3.2-3b", "Llama 3.2 3B: 28 layers of 3072, tied embeddings"},
    NamedShape{"llama-3.2-1b", "Llama 3.2 1B: 16 layers of 2048, tied embeddings"},
    NamedShape{"tiny", "15 million parameters: 6 layers of 288, vocabulary 32,000"},
    NamedShape{"house", "the house model: 4 layers of 256, vocabulary 2,048"},
};

// Shapes of the 3.2 models: https://huggingface.co/meta-llama/Llama-3.2-1B and Llama-3.2-3B.
LlamaConfig Llama32(uint32_t dim, uint32_t layers, uint32_t heads, uint32_t head_dim) {
  LlamaConfig config = Llama31Shape8B();
  config.dim = dim;
  config.layers = layers;
  config.heads = heads;
  config.head_dim = head_dim;
  config.ffn_dim = 8192;
  config.tied_embeddings = true;
  return config;
}

// The shape of stories15M (https://github.com/karpathy/llama2.c), with a longer context.
LlamaConfig Tiny() {
  LlamaConfig config = SmallLlamaConfig();
  config.vocab_size = 32000;
  config.dim = 288;
  config.layers = 6;
  config.heads = config.kv_heads = 6;
  config.head_dim = 48;
  config.ffn_dim = 768;
  config.context_length = 2048;
  config.tied_embeddings = true;
  return config;
}

LlamaConfig House() {
  LlamaConfig config = SmallWideLlamaConfig();
  config.vocab_size = 2048;
  config.layers = 4;
  config.context_length = 2048;
  config.tied_embeddings = true;
  return config;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

bool IsKType(TensorType type) {
  return type == TensorType::kQ4_K || type == TensorType::kQ5_K || type == TensorType::kQ6_K;
}

TensorType WithSmallBlocks(TensorType type) {
  if (type == TensorType::kQ4_K) return TensorType::kQ5_0;
  if (type == TensorType::kQ5_K) return TensorType::kQ5_1;
  return TensorType::kQ8_0;
}

bool BelowSixBits(TensorType type) {
  const TensorTypeTraits traits = Traits(type);
  return traits.bytes * 8 <= traits.elements * 6;
}

std::string ShapeNames() {
  std::string names;
  for (const NamedShape& shape : kShapes) {
    names += (names.empty() ? "" : ", ") + std::string(shape.name);
  }
  return names;
}

}  // namespace

std::span<const NamedShape> NamedShapes() { return kShapes; }

absl::StatusOr<TensorType> ParseTensorType(std::string_view name) {
  std::string all;
  for (const TensorType type : AllTensorTypes()) {
    const std::string known = Lower(TensorTypeName(type));
    if (known == Lower(name)) return type;
    all += (all.empty() ? "" : ", ") + known;
  }
  return InvalidArgumentError("type \"%s\" is not known; there are %s", name.substr(0, 40), all);
}

absl::StatusOr<SyntheticLlamaOptions> ParseSyntheticModel(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == text.npos) {
    return InvalidArgumentError(
        "synthetic model \"%s\" names no type; it must be SHAPE:TYPE, as in llama-3.2-1b:q4_0",
        text.substr(0, 60));
  }
  const std::string name = Lower(text.substr(0, colon));
  const size_t shape =
      std::find_if(kShapes.begin(), kShapes.end(), [&](const auto& s) { return s.name == name; }) -
      kShapes.begin();
  SyntheticLlamaOptions options;
  switch (shape) {
    case 0:
      options.config = Llama31Shape8B();
      options.llama3_rope.emplace();
      break;
    case 1:
      options.config = Llama32(3072, 28, 24, 128);
      options.llama3_rope = Llama3RopeScaling{.factor = kSmallModelFactor};
      break;
    case 2:
      options.config = Llama32(2048, 16, 32, 64);
      options.llama3_rope = Llama3RopeScaling{.factor = kSmallModelFactor};
      break;
    case 3:
      options.config = Tiny();
      break;
    case 4:
      options.config = House();
      break;
    default:
      return InvalidArgumentError("synthetic model \"%s\" is not known; there are %s",
                                  text.substr(0, 60), ShapeNames());
  }
  std::string_view types = text.substr(colon + 1);
  std::optional<std::string_view> output;
  if (const size_t plus = types.find('+'); plus != types.npos) {
    output = types.substr(plus + 1);
    types = types.substr(0, plus);
  }
  ASSIGN_OR_RETURN(TensorType matrix, ParseTensorType(types));
  TensorType last = BelowSixBits(matrix) ? TensorType::kQ6_K : matrix;
  if (output.has_value()) {
    ASSIGN_OR_RETURN(last, ParseTensorType(*output));
  }
  const LlamaConfig& config = options.config;
  const auto fits = [&](TensorType type, uint32_t length) {
    return length % Traits(type).elements == 0;
  };
  if (IsKType(matrix) &&
      !(fits(matrix, config.dim) && fits(matrix, config.q_dim()) && fits(matrix, config.ffn_dim))) {
    matrix = WithSmallBlocks(matrix);
  }
  if (IsKType(last) && !fits(last, config.dim)) last = WithSmallBlocks(last);
  options.config.name = std::string("synthetic ") + std::string(text);
  options.matrix_type = matrix;
  options.output_type = last;
  options.embedding_type = config.tied_embeddings ? last : matrix;
  options.distinct_rows = kDistinctRows;
  return options;
}

}  // namespace reticle::models
