#include "tests/golden/golden_model.h"

#include <cmath>
#include <cstring>
#include <deque>
#include <fstream>
#include <span>
#include <sstream>

#include "base/check.h"
#include "models/gguf_writer.h"
#include "models/half.h"
#include "models/rope.h"

namespace reticle::golden {
namespace {

using models::TensorType;

// splitmix64's finaliser: `words` of the script.
uint64_t Word(uint64_t seed, uint64_t stream, uint64_t index) {
  uint64_t x = (seed << 32) + (stream << 28) + index + 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

struct Recipe {
  TensorType type;
  int exponent;
  size_t scale_at;
  size_t min_at;     // 0: none
  float min_factor;  // times the scale
};

constexpr Recipe kRecipes[] = {
    {TensorType::kF32, 26, 0, 0, 0},     {TensorType::kF16, 13, 0, 0, 0},
    {TensorType::kBF16, 10, 0, 0, 0},    {TensorType::kQ8_0, 11, 0, 0, 0},
    {TensorType::kQ4_0, 7, 0, 0, 0},     {TensorType::kQ4_1, 7, 0, 2, -7.5f},
    {TensorType::kQ5_0, 8, 0, 0, 0},     {TensorType::kQ5_1, 8, 0, 2, -15.5f},
    {TensorType::kQ4_K, 13, 0, 2, 7.5f}, {TensorType::kQ5_K, 14, 0, 2, 15.5f},
    {TensorType::kQ6_K, 16, 208, 0, 0},
};

const Recipe& RecipeOf(TensorType type) {
  for (const Recipe& recipe : kRecipes) {
    if (recipe.type == type) return recipe;
  }
  RETICLE_CHECK(false);
  return kRecipes[0];
}

template <typename T>
void Append(T value, std::vector<std::byte>* out) {
  const size_t at = out->size();
  out->resize(at + sizeof(T));
  std::memcpy(out->data() + at, &value, sizeof(T));
}

std::vector<std::byte> FloatBytes(TensorType type, size_t count, uint64_t seed, int exponent) {
  std::vector<std::byte> out;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t word = Word(seed, 0, i);
    if (type == TensorType::kF32) {
      const int64_t integer = static_cast<int64_t>(word >> 40) - (1 << 23);
      Append(static_cast<float>(std::ldexp(static_cast<double>(integer), -exponent)), &out);
    } else if (type == TensorType::kF16) {
      const int64_t integer = static_cast<int64_t>(word >> 53) - 1024;
      Append(models::FloatToHalf(std::ldexp(static_cast<float>(integer), -exponent)), &out);
    } else {
      const int64_t integer = static_cast<int64_t>(word >> 56) - 128;
      Append(models::FloatToBfloat16(std::ldexp(static_cast<float>(integer), -exponent)), &out);
    }
  }
  return out;
}

void NarrowScales(TensorType type, std::byte* block) {
  if (type == TensorType::kQ4_K || type == TensorType::kQ5_K) {
    for (size_t i = 4; i < 12; ++i) block[i] |= std::byte{0xA0};
  } else if (type == TensorType::kQ6_K) {
    for (size_t i = 192; i < 208; ++i) {
      const int random = static_cast<int>(block[i]);
      const int scale = 64 + (random & 63);
      block[i] = static_cast<std::byte>(static_cast<int8_t>((random & 64) != 0 ? -scale : scale));
    }
  }
}

// `tensor_bytes` of the script.
std::vector<std::byte> TensorBytes(TensorType type, size_t count, uint64_t seed, int shift) {
  const Recipe& recipe = RecipeOf(type);
  const models::TensorTypeTraits traits = models::Traits(type);
  const int exponent = recipe.exponent - shift;
  if (traits.elements == 1) return FloatBytes(type, count, seed, exponent);
  const size_t blocks = count / traits.elements;
  std::vector<std::byte> out;
  for (size_t i = 0; i < (blocks * traits.bytes + 7) / 8; ++i) Append(Word(seed, 0, i), &out);
  out.resize(blocks * traits.bytes);
  for (size_t b = 0; b < blocks; ++b) {
    const float sixteenths = static_cast<float>(16 + (Word(seed, 1, b) & 15));
    const float scale = std::ldexp(sixteenths / 16, -exponent);
    std::byte* block = out.data() + b * traits.bytes;
    const uint16_t half = models::FloatToHalf(scale);
    std::memcpy(block + recipe.scale_at, &half, sizeof(half));
    NarrowScales(type, block);
    if (recipe.min_at == 0) continue;
    const uint16_t min = models::FloatToHalf(scale * recipe.min_factor);
    std::memcpy(block + recipe.min_at, &min, sizeof(min));
  }
  return out;
}

std::vector<std::byte> NormBytes(uint32_t dim, uint64_t seed) {
  std::vector<std::byte> out;
  for (uint32_t i = 0; i < dim; ++i) {
    const int64_t integer = static_cast<int64_t>(Word(seed, 0, i) >> 48) - (1 << 15);
    Append(1.0f + std::ldexp(static_cast<float>(integer), -17), &out);
  }
  return out;
}

}  // namespace

std::vector<uint32_t> GoldenCase::Prompt() const {
  std::vector<uint32_t> prompt(tokens);
  for (uint32_t i = 0; i < tokens; ++i) prompt[i] = static_cast<uint32_t>(Word(seed, 2, i) % vocab);
  return prompt;
}

std::vector<std::byte> GoldenCase::Gguf() const {
  models::GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddString("general.name", name);
  writer.AddUint32("llama.embedding_length", dim);
  writer.AddUint32("llama.block_count", layers);
  writer.AddUint32("llama.attention.head_count", heads);
  writer.AddUint32("llama.attention.head_count_kv", kv_heads);
  writer.AddUint32("llama.attention.key_length", head_dim);
  writer.AddUint32("llama.attention.value_length", head_dim);
  writer.AddUint32("llama.rope.dimension_count", head_dim);
  writer.AddUint32("llama.feed_forward_length", ffn);
  writer.AddUint32("llama.context_length", 16384);
  writer.AddFloat32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.AddFloat32("llama.rope.freq_base", static_cast<float>(rope_base));
  if (linear != 1.0) {
    writer.AddString("llama.rope.scaling.type", "linear");
    writer.AddFloat32("llama.rope.scaling.factor", static_cast<float>(linear));
  }

  std::deque<std::vector<std::byte>> held;  // until written
  uint64_t number = 1000 * seed;
  const auto matrix = [&](const std::string& tensor, uint64_t rows, uint64_t columns, int shift) {
    held.push_back(TensorBytes(type, rows * columns, ++number, shift));
    writer.AddTensor(tensor, type, {columns, rows}, held.back());
  };
  const auto norm = [&](const std::string& tensor) {
    held.push_back(NormBytes(dim, ++number));
    writer.AddTensor(tensor, TensorType::kF32, {dim}, held.back());
  };
  const uint64_t q_dim = uint64_t{heads} * head_dim;
  const uint64_t kv_dim = uint64_t{kv_heads} * head_dim;
  matrix("token_embd.weight", vocab, dim, 4);
  for (uint32_t l = 0; l < layers; ++l) {
    const std::string block = "blk." + std::to_string(l) + ".";
    norm(block + "attn_norm.weight");
    matrix(block + "attn_q.weight", q_dim, dim, 0);
    matrix(block + "attn_k.weight", kv_dim, dim, 0);
    matrix(block + "attn_v.weight", kv_dim, dim, 0);
    matrix(block + "attn_output.weight", dim, q_dim, -1);
    norm(block + "ffn_norm.weight");
    matrix(block + "ffn_gate.weight", ffn, dim, 0);
    matrix(block + "ffn_up.weight", ffn, dim, 0);
    matrix(block + "ffn_down.weight", dim, ffn, -1);
  }
  norm("output_norm.weight");
  if (!tied) matrix("output.weight", vocab, dim, 0);
  if (llama3 != 0) {
    const std::vector<float> factors =
        models::Llama3RopeFactors(head_dim, rope_base, {.factor = llama3});
    const auto bytes = std::as_bytes(std::span(factors));
    held.emplace_back(bytes.begin(), bytes.end());
    writer.AddTensor("rope_freqs.weight", TensorType::kF32, {head_dim / 2}, held.back());
  }
  auto bytes = writer.WriteBytes();
  RETICLE_CHECK(bytes.ok());
  return *std::move(bytes);
}

std::vector<GoldenCase> ReadGoldenCases() {
  std::ifstream file("tests/golden/data/llama_logits.txt");
  std::vector<GoldenCase> cases;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string word;
    fields >> word;
    if (word == "case") {
      GoldenCase c;
      std::string type;
      fields >> c.name >> type >> c.seed >> c.dim >> c.layers >> c.heads >> c.kv_heads >>
          c.head_dim >> c.ffn >> c.vocab >> c.tokens >> c.rope_base >> c.linear >> c.llama3 >>
          c.tied;
      for (const Recipe& recipe : kRecipes) {
        if (models::TensorTypeName(recipe.type) == type) c.type = recipe.type;
      }
      cases.push_back(std::move(c));
    } else if (word == "logits" && !cases.empty()) {
      ExpectedLogits& expected = cases.back().expected.emplace_back();
      fields >> expected.position;
      float value;
      while (fields >> value) expected.values.push_back(value);
    }
  }
  return cases;
}

}  // namespace reticle::golden
