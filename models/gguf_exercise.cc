#include "models/gguf_exercise.h"

#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "models/gguf.h"
#include "models/gguf_writer.h"
#include "models/llama_config.h"
#include "models/quantization.h"
#include "models/rope.h"
#include "models/synthetic.h"

namespace reticle::models {
namespace {

// Keeps the reading from being optimised away.
volatile uint64_t g_sum = 0;

uint64_t Touch(std::string_view text) {
  uint64_t sum = 0;
  for (const char c : text) sum += static_cast<uint8_t>(c);
  return sum;
}

uint64_t ExerciseValue(const GgufValue& value, int depth) {
  RETICLE_CHECK(depth <= GgufValue::kMaxDepth);
  uint64_t sum = value.encoded().size();
  sum += value.AsUint().ok() + value.AsInt().ok() + value.AsFloat().ok() + value.AsBool().ok();
  if (const auto text = value.AsString(); text.ok()) sum += Touch(*text);
  if (const auto strings = value.AsStringArray(); strings.ok()) {
    RETICLE_CHECK(strings->size() == value.size());
    for (const std::string_view text : *strings) sum += Touch(text);
  }
  if (const auto integers = value.AsIntArray(); integers.ok()) {
    RETICLE_CHECK(integers->size() == value.size());
  }
  if (const auto floats = value.AsFloatArray(); floats.ok()) {
    RETICLE_CHECK(floats->size() == value.size());
  }
  const auto elements = value.AsArray();
  RETICLE_CHECK(elements.ok() == (value.type() == GgufValueType::kArray));
  if (elements.ok()) {
    RETICLE_CHECK(elements->size() == value.size());
    for (const GgufValue& element : *elements) sum += ExerciseValue(element, depth + 1);
  }
  return sum;
}

uint64_t ExerciseTensor(const GgufFile& file, const GgufTensor& tensor) {
  RETICLE_CHECK(file.FindTensor(tensor.name) == &tensor);
  RETICLE_CHECK(tensor.elements() == tensor.rows() * tensor.shape[0]);
  RETICLE_CHECK(tensor.file_offset >= file.data_offset());
  RETICLE_CHECK(tensor.file_offset + tensor.data.size() <= file.size_bytes());
  uint64_t sum = 0;
  for (const std::byte byte : tensor.data) sum += std::to_integer<uint64_t>(byte);
  const TensorTypeTraits traits = Traits(tensor.type);
  std::vector<float> block(traits.elements);
  Dequantize(tensor.type, tensor.data.first(traits.bytes), block);
  return sum;
}

}  // namespace

std::vector<std::byte> SampleTinyLlama() {
  SyntheticLlamaOptions options;
  options.config.vocab_size = 4;
  options.config.dim = 32;
  options.config.heads = 2;
  options.config.kv_heads = 1;
  options.config.ffn_dim = 32;
  options.config.layers = 1;
  options.with_tokenizer = false;
  options.matrix_type = TensorType::kQ4_0;
  options.llama3_rope = Llama3RopeScaling();
  return MakeSyntheticLlama(options).value();
}

std::vector<std::byte> SampleOfEveryValueType() {
  GgufWriter writer(8);
  writer.AddUint8("u8", 1);
  writer.AddInt16("i16", -1);
  writer.AddUint64("u64", 1);
  writer.AddFloat64("f64", 1.0);
  writer.AddBool("bool", true);
  writer.AddString("text", "text");
  writer.AddStringArray("texts", std::vector<std::string>{"a", "", "ccc"});
  writer.AddInt32Array("ints", std::vector<int32_t>{1, 2, 3});
  writer.AddFloat32Array("floats", std::vector<float>{1, 2});
  // array of array: {{7}, {"x"}}
  std::vector<std::byte> nested;
  const auto put = [&nested](auto value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    nested.insert(nested.end(), bytes.begin(), bytes.end());
  };
  put(uint32_t{9}), put(uint64_t{2});
  put(uint32_t{0}), put(uint64_t{1}), put(uint8_t{7});
  put(uint32_t{8}), put(uint64_t{1}), put(uint64_t{1}), put('x');
  writer.AddEncoded("nested", GgufValueType::kArray, nested);
  const std::vector<std::byte> data(48);
  writer.AddTensor("t", TensorType::kF32, {3, 2, 2}, data);
  writer.AddTensor("u", TensorType::kF16, {24}, data);
  return writer.WriteBytes().value();
}

bool ExerciseGguf(std::span<const std::byte> bytes) {
  const auto parsed = GgufFile::Parse(bytes);
  if (!parsed.ok()) {
    RETICLE_CHECK(!parsed.status().message().empty());
    return false;
  }
  const GgufFile& file = **parsed;
  uint64_t sum = 0;
  for (const std::string_view key : file.Keys()) {
    RETICLE_CHECK(file.Has(key) && file.TypeOf(key).ok());
    sum += ExerciseValue(file.Get(key).value(), 0);
  }
  for (const GgufTensor& tensor : file.tensors()) sum += ExerciseTensor(file, tensor);
  if (const auto config = ReadLlamaConfig(file); config.ok()) {
    if (const auto weights = BindLlamaWeights(file, *config); weights.ok()) {
      RETICLE_CHECK(weights->layers.size() == config->layers);
      sum += RopeFrequencies(*config, *weights).ok();
    }
  }
  g_sum = sum;
  return true;
}

}  // namespace reticle::models
