#include "models/synthetic.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "models/quantization.h"

namespace reticle::models {
namespace {

constexpr uint32_t kByteTokens = 256;
constexpr uint32_t kControlTokens = 4;
constexpr int32_t kTokenTypeNormal = 1;
constexpr int32_t kTokenTypeControl = 3;
// Logits then spread over several units, so that the likeliest token stands out as in real models.
constexpr float kOutputGain = 3.0f;
constexpr float kNormSpread = 0.1f;
constexpr std::string_view kChatTemplate =
    "{{- bos_token }}"
    "{%- for turn in messages %}"
    "{{- '<|im_start|>' ~ turn.role ~ '\\n' }}"
    "{{- turn.content | trim }}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scrambles all bits.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// FNV-1a.
uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// A sample of roughly the standard normal distribution, within 3.5, from integers and one product,
// so that it is the same everywhere: the sum of four uniform 16-bit numbers.
float Normal(uint64_t bits) {
  constexpr float kInverseDeviation = 1.0f / 37837.22f;  // 65536 / sqrt(3)
  const int32_t sum = static_cast<int32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                           ((bits >> 32) & 0xffff) + (bits >> 48));
  return static_cast<float>(sum - 2 * 0xffff) * kInverseDeviation;
}

// What one tensor's values are drawn from.
struct Source {
  uint64_t key;
  float mean;
  float deviation;

  void Fill(uint64_t row, std::span<float> out) const {
    const uint64_t row_key = Mix(key ^ Mix(row));
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = mean + deviation * Normal(Mix(row_key + i));
    }
  }
};

// Gives `rows` rows one after the other, so that only one is in memory (or `distinct` of them).
absl::Status ProduceRows(const Source& source, TensorType type, uint64_t row_length, uint64_t rows,
                         uint32_t distinct, const GgufWriter::Sink& sink) {
  const TensorTypeTraits traits = Traits(type);
  const size_t row_bytes = row_length / traits.elements * traits.bytes;
  std::vector<float> values(row_length);
  if (distinct == 0 || distinct >= rows) {
    std::vector<std::byte> encoded(row_bytes);
    for (uint64_t row = 0; row < rows; ++row) {
      source.Fill(row, values);
      RETURN_IF_ERROR(Quantize(type, values, encoded));
      RETURN_IF_ERROR(sink(encoded));
    }
    return absl::OkStatus();
  }
  std::vector<std::byte> pool(row_bytes * distinct);
  for (uint32_t i = 0; i < distinct; ++i) {
    source.Fill(i, values);
    RETURN_IF_ERROR(Quantize(type, values, std::span(pool).subspan(i * row_bytes, row_bytes)));
  }
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t pick = Mix(source.key + row) % distinct;
    RETURN_IF_ERROR(sink(std::span(pool).subspan(pick * row_bytes, row_bytes)));
  }
  return absl::OkStatus();
}

class Builder {
 public:
  explicit Builder(const SyntheticLlamaOptions& options) : options_(options) {}

  GgufWriter Build() {
    AddMetadata();
    if (options_.with_tokenizer) AddTokenizer();
    AddTensors();
    return std::move(writer_);
  }

 private:
  void AddMetadata();
  void AddTokenizer();
  void AddTensors();

  void AddMatrix(const std::string& name, TensorType type, uint64_t in, uint64_t out,
                 float deviation) {
    const Source source = {Mix(options_.seed) ^ HashName(name), 0.0f, deviation};
    const uint64_t shape[] = {in, out};
    writer_.AddTensor(
        name, type, shape,
        [source, type, in, out, distinct = options_.distinct_rows](const GgufWriter::Sink& sink) {
          return ProduceRows(source, type, in, out, distinct, sink);
        });
  }

  void AddLayerMatrix(const std::string& name, uint64_t in, uint64_t out) {
    AddMatrix(name, options_.matrix_type, in, out, 1.0f / std::sqrt(static_cast<float>(in)));
  }

  void AddNorm(const std::string& name) {
    const Source source = {Mix(options_.seed) ^ HashName(name), 1.0f, kNormSpread};
    const uint64_t shape[] = {options_.config.dim};
    writer_.AddTensor(name, TensorType::kF32, shape,
                      [source, dim = options_.config.dim](const GgufWriter::Sink& sink) {
                        return ProduceRows(source, TensorType::kF32, dim, 1, 0, sink);
                      });
  }

  const SyntheticLlamaOptions& options_;
  GgufWriter writer_;
};

void Builder::AddMetadata() {
  const LlamaConfig& config = options_.config;
  writer_.AddString("general.architecture", "llama");
  writer_.AddString("general.name", config.name);
  writer_.AddUint32("llama.vocab_size", config.vocab_size);
  writer_.AddUint32("llama.context_length", config.context_length);
  writer_.AddUint32("llama.embedding_length", config.dim);
  writer_.AddUint32("llama.block_count", config.layers);
  writer_.AddUint32("llama.feed_forward_length", config.ffn_dim);
  writer_.AddUint32("llama.attention.head_count", config.heads);
  writer_.AddUint32("llama.attention.head_count_kv", config.kv_heads);
  writer_.AddUint32("llama.attention.key_length", config.head_dim);
  writer_.AddUint32("llama.attention.value_length", config.head_dim);
  writer_.AddFloat32("llama.attention.layer_norm_rms_epsilon", config.norm_epsilon);
  writer_.AddUint32("llama.rope.dimension_count", config.head_dim);
  writer_.AddFloat32("llama.rope.freq_base", static_cast<float>(config.rope_base));
  if (config.rope_linear_factor != 1.0) {
    writer_.AddString("llama.rope.scaling.type", "linear");
    writer_.AddFloat32("llama.rope.scaling.factor", static_cast<float>(config.rope_linear_factor));
  }
}

std::string Utf8Below0x800(uint32_t code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 63))};
}

// The text that stands for a byte in a byte-level vocabulary: the byte's own Latin-1 character
// where that is printable, else the next unused code point from U+0100.
std::vector<std::string> ByteTexts() {
  std::vector<std::string> texts;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < kByteTokens; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    texts.push_back(Utf8Below0x800(printable ? byte : next++));
  }
  return texts;
}

void Builder::AddTokenizer() {
  const uint32_t vocab_size = options_.config.vocab_size;
  std::vector<std::string> tokens = ByteTexts();
  std::vector<std::string> merges;
  // Every string of letters, with or without a space in front, shortest first.
  std::vector<std::string> stems = {tokens[' ']};
  for (char c = 'a'; c <= 'z'; ++c) stems.emplace_back(1, c);
  const uint32_t merged_end = vocab_size - kControlTokens;
  for (size_t stem = 0; tokens.size() < merged_end; ++stem) {
    for (char c = 'a'; c <= 'z' && tokens.size() < merged_end; ++c) {
      const std::string merged = stems[stem] + c;
      merges.push_back(stems[stem] + " " + c);
      tokens.push_back(merged);
      stems.push_back(merged);
    }
  }
  std::vector<int32_t> types(tokens.size(), kTokenTypeNormal);
  const uint32_t first_control = static_cast<uint32_t>(tokens.size());
  for (const char* text : {"<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"}) {
    tokens.emplace_back(text);
    types.push_back(kTokenTypeControl);
  }
  writer_.AddString("tokenizer.ggml.model", "gpt2");
  writer_.AddString("tokenizer.ggml.pre", "llama-bpe");
  writer_.AddStringArray("tokenizer.ggml.tokens", tokens);
  writer_.AddInt32Array("tokenizer.ggml.token_type", types);
  writer_.AddStringArray("tokenizer.ggml.merges", merges);
  writer_.AddUint32("tokenizer.ggml.bos_token_id", first_control);
  writer_.AddUint32("tokenizer.ggml.eos_token_id", first_control + 1);
  writer_.AddUint32("tokenizer.ggml.eot_token_id", first_control + 3);
  writer_.AddBool("tokenizer.ggml.add_bos_token", true);
  writer_.AddString("tokenizer.chat_template", kChatTemplate);
}

void Builder::AddTensors() {
  const LlamaConfig& config = options_.config;
  const TensorType embedding_type = options_.embedding_type.value_or(options_.matrix_type);
  const float output_deviation = kOutputGain / std::sqrt(static_cast<float>(config.dim));
  AddMatrix("token_embd.weight", embedding_type, config.dim, config.vocab_size,
            config.tied_embeddings ? output_deviation : 1.0f);
  if (options_.llama3_rope.has_value()) {
    const auto factors = std::make_shared<const std::vector<float>>(
        Llama3RopeFactors(config.head_dim, config.rope_base, *options_.llama3_rope));
    const uint64_t shape[] = {factors->size()};
    writer_.AddTensor("rope_freqs.weight", TensorType::kF32, shape,
                      [factors](const GgufWriter::Sink& sink) {
                        return sink(std::as_bytes(std::span(*factors)));
                      });
  }
  for (uint32_t i = 0; i < config.layers; ++i) {
    const std::string block = absl::StrFormat("blk.%d.", i);
    AddNorm(block + "attn_norm.weight");
    AddLayerMatrix(block + "attn_q.weight", config.dim, config.q_dim());
    AddLayerMatrix(block + "attn_k.weight", config.dim, config.kv_dim());
    AddLayerMatrix(block + "attn_v.weight", config.dim, config.kv_dim());
    AddLayerMatrix(block + "attn_output.weight", config.q_dim(), config.dim);
    AddNorm(block + "ffn_norm.weight");
    AddLayerMatrix(block + "ffn_gate.weight", config.dim, config.ffn_dim);
    AddLayerMatrix(block + "ffn_up.weight", config.dim, config.ffn_dim);
    AddLayerMatrix(block + "ffn_down.weight", config.ffn_dim, config.dim);
  }
  AddNorm("output_norm.weight");
  if (!config.tied_embeddings) {
    AddMatrix("output.weight", options_.output_type.value_or(options_.matrix_type), config.dim,
              config.vocab_size, output_deviation);
  }
}

}  // namespace

LlamaConfig SmallLlamaConfig() {
  LlamaConfig config;
  config.name = "synthetic";
  config.vocab_size = 320;
  config.dim = 64;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.ffn_dim = 128;
  config.context_length = 512;
  config.norm_epsilon = 1e-5f;
  config.rope_base = 10000.0;
  return config;
}

LlamaConfig SmallWideLlamaConfig() {
  LlamaConfig config = SmallLlamaConfig();
  config.dim = 256;
  config.head_dim = 64;
  config.ffn_dim = 512;
  return config;
}

LlamaConfig Llama31Shape8B() {
  LlamaConfig config;
  config.name = "synthetic-8b";
  config.vocab_size = 128256;
  config.dim = 4096;
  config.layers = 32;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.ffn_dim = 14336;
  config.context_length = 131072;
  config.norm_epsilon = 1e-5f;
  config.rope_base = 500000.0;
  return config;
}

absl::StatusOr<GgufWriter> SyntheticLlama(const SyntheticLlamaOptions& options) {
  RETURN_IF_ERROR(options.config.Validate());
  if (options.with_tokenizer && options.config.vocab_size < kByteTokens + kControlTokens) {
    return InvalidArgumentError("vocab_size is %d; a tokenizer needs at least %d",
                                options.config.vocab_size, kByteTokens + kControlTokens);
  }
  GgufWriter writer = Builder(options).Build();
  RETURN_IF_ERROR(writer.status());
  return writer;
}

absl::StatusOr<std::vector<std::byte>> MakeSyntheticLlama(const SyntheticLlamaOptions& options) {
  ASSIGN_OR_RETURN(const GgufWriter writer, SyntheticLlama(options));
  return writer.WriteBytes();
}

absl::Status WriteSyntheticLlama(const SyntheticLlamaOptions& options, const std::string& path) {
  ASSIGN_OR_RETURN(const GgufWriter writer, SyntheticLlama(options));
  return writer.WriteFile(path);
}

}  // namespace reticle::models
